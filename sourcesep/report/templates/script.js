"use strict";
// One player at a time, a line that shows where it is, and a click on a picture to go there.
const players = [...document.querySelectorAll("audio")];
const begin = (player) =>
  player.currentSrc.startsWith("data:") ? Number(player.dataset.start) : 0;
const place = (player) => begin(player) + player.currentTime;
const go = (player, seconds) => {
  const time = seconds - begin(player);
  if (time >= 0 && time < player.duration) player.currentTime = time;
};
for (const player of players) {
  const frames = player.closest("article").querySelectorAll(".frame");
  const total = Number(player.dataset.total);
  const lines = [...frames].map((frame) => {
    const line = frame.appendChild(document.createElement("i"));
    line.className = "playhead";
    line.hidden = true;
    frame.classList.add("seekable");
    frame.addEventListener("click", (event) => {
      const box = frame.getBoundingClientRect();
      go(player, (total * (event.clientX - box.left)) / box.width);
      player.play();
    });
    return line;
  });
  const draw = () => {
    for (const line of lines) {
      line.hidden = false;
      line.style.left = `${(100 * place(player)) / total}%`;
    }
    if (!player.paused) requestAnimationFrame(draw);
  };
  player.addEventListener("play", () => {
    for (const other of players) {
      if (other === player || other.paused) continue;
      other.pause();
      go(player, place(other));
    }
    draw();
  });
  player.addEventListener("seeked", draw);
}

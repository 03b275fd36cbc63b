"""Small valid files of every kind that is read, and what is done to them to make hostile ones."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

__all__ = ["AUDIO", "CORPORA", "Files", "mutated"]

Files = dict[str, bytes]
"""File names and contents; the first is the one that is read."""
Rng = np.random.Generator

AUDIO: dict[str, tuple[tuple[str, str, int], ...]] = {
    "wav": (
        *(("WAV", subtype, 8000) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT")),
        *(("WAV", subtype, 8000) for subtype in ("ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")),
        *(("WAVEX", "PCM_32", 8000), ("RF64", "PCM_16", 8000)),
    ),
    "flac": (("FLAC", "PCM_16", 8000), ("FLAC", "PCM_24", 44100), ("FLAC", "PCM_S8", 8000)),
    "ogg": (("OGG", "VORBIS", 8000), ("OGG", "OPUS", 48000), ("FLAC", "PCM_16", 8000)),
    "mp3": (("MP3", "MPEG_LAYER_III", 8000), ("MP3", "MPEG_LAYER_III", 44100)),
    "aiff": (("AIFF", "PCM_16", 8000), ("AIFF", "PCM_24", 8000), ("AIFF", "DOUBLE", 8000)),
    "w64": (("W64", "PCM_16", 8000), ("W64", "FLOAT", 8000), ("W64", "ULAW", 8000)),
    "caf": (("CAF", "PCM_16", 8000), ("CAF", "ALAC_16", 8000), ("CAF", "ALAC_24", 8000)),
    "au": (("AU", "PCM_16", 8000), ("AU", "FLOAT", 8000)),
}
NUMBERS = (0, 1, 2, 3, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)
WORDS = (
    *("0", "1", "-1", "7", "99999999999", "1099511627776", "1e400", "-1e308", "1e-320", "nan"),
    *("inf", "", " ", "1_000", "0x10", "1,5", "../../x", "/dev/zero", "x\0y", "\u0664", "\u00b2"),
)
"""What stands where a number or a name was."""


def signal(n_channels: int = 2, n_times: int = 300) -> np.ndarray:
    """Noise, (channels, times), the same at every call."""
    return 0.1 * np.random.default_rng(0).standard_normal((n_channels, n_times))


# What is valid


def audio(kind: str) -> list[Files]:
    """One file for each container and encoding of the kind."""
    import soundfile

    made = []
    for container, subtype, sfreq in AUDIO[kind]:
        n_channels = 1 if subtype == "GSM610" else 2
        file = io.BytesIO()
        soundfile.write(file, signal(n_channels).T, sfreq, subtype, format=container)
        made.append({f"a.{kind}": file.getvalue()})
    return made


def raw_fif() -> list[Files]:
    """With annotations; plain, and compressed."""
    import mne

    info = mne.create_info(["E0", "E1", "EOG"], 100.0, ["eeg", "eeg", "eog"], verbose="error")
    raw = mne.io.RawArray(1e-5 * signal(3, 400), info, verbose="error")
    raw.set_annotations(mne.Annotations([0.5, 2], [0.2, 0], ["blink", "BAD_x"]))
    raw.info["bads"] = ["EOG"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        raw.save(folder / "a_raw.fif", verbose="error")
        raw.save(folder / "b_raw.fif.gz", verbose="error")
        whole = {"a_raw.fif": (folder / "a_raw.fif").read_bytes()}
        packed = {"b_raw.fif.gz": (folder / "b_raw.fif.gz").read_bytes()}
    return [whole, packed]


def edf(kind: str) -> list[Files]:
    """Three channels in four records, in microvolts; one with a channel of annotations."""
    n, bdf = 50, kind == "bdf"
    half = 2**23 if bdf else 2**15
    made = []
    for labels in (["EEG 0", "EEG 1", "EEG 2"], ["EEG 0", "EEG 1", f"{kind.upper()} Annotations"]):
        fields = (
            (labels, 16),
            ([""] * 3, 80),
            (["uV"] * 3, 8),
            ([f"{-half // 4}"] * 3, 8),
            ([f"{(half - 1) / 4:.2f}"[:8]] * 3, 8),
            ([f"{-half}"] * 3, 8),
            ([f"{half - 1}"] * 3, 8),
            (["HP:1Hz LP:50Hz"] * 3, 80),
            ([f"{n}"] * 3, 8),
            ([""] * 3, 32),
        )
        head = (b"\xffBIOSEMI" if bdf else b"0       ") + b"".ljust(160) + b"06.05.2407.08.09"
        reserved = f"{kind.upper()}+C" if "Annotations" in labels[2] else "24BIT" * bdf
        for value, width in ((1024, 8), (reserved, 44), (4, 8), (1, 8), (3, 4)):
            head += str(value).encode().ljust(width)
        head += b"".join(v.encode().ljust(width) for values, width in fields for v in values)
        whole = np.rint(1000 * signal(3, 4 * n)).astype("<i4").reshape(3, 4, n).transpose(1, 0, 2)
        width = 3 if bdf else 2
        records = (
            np.ascontiguousarray(whole).view(np.uint8).reshape(4, 3, n, 4)[..., :width].copy()
        )
        if "Annotations" in labels[2]:
            for i in range(4):
                text = f"+{i}\x14\x14\0+{i}.5\x150.1\x14blink\x14\0".encode().ljust(
                    n * width, b"\0"
                )
                records[i, 2] = np.frombuffer(text, np.uint8).reshape(n, width)
        made.append({f"a.{kind}": head + records.tobytes()})
    return made


def brainvision() -> list[Files]:
    """Header, marks and samples; of whole numbers, and of floats."""
    made = []
    for form, dtype in (("IEEE_FLOAT_32", "<f4"), ("INT_16", "<i2")):
        head = (
            "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
            "DataFile=a.eeg\nMarkerFile=a.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
            f"NumberOfChannels=3\nSamplingInterval=10000\n[Binary Infos]\nBinaryFormat={form}\n"
            "[Channel Infos]\nCh1=E0,,1,\u00b5V\nCh2=E1,,.5,\u00b5V\nCh3=E2,E0,1,\u00b5V\n"
            "[Coordinates]\nCh1=1,-90,72\nCh2=1,90,72\nCh3=1,0,0\n"
        )
        marks = (
            "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\n"
            "DataFile=a.eeg\n[Marker Infos]\nMk1=New Segment,,1,1,0,20240506070809000000\n"
            "Mk2=Stimulus,S  1,101,1,0\n"
        )
        samples = (100 * signal(3, 400).T).astype(dtype).tobytes()
        made.append({"a.vhdr": head.encode(), "a.vmrk": marks.encode(), "a.eeg": samples})
    return made


def eeglab() -> list[Files]:
    """With the samples inside, and in a file beside it."""
    from scipy.io import savemat

    made = []
    for name in (None, "a.fdt"):
        x = (100 * signal(3, 200)).astype(np.float32)
        events = np.array([("blink", 50.0)], dtype=[("type", object), ("latency", object)])
        facts = {
            **{"setname": "a", "nbchan": 3, "trials": 1, "pnts": 200, "srate": 100.0},
            **{"xmin": 0.0, "xmax": 1.99, "data": name or x, "event": events},
            "chanlocs": np.array([("E0",), ("E1",), ("E2",)], dtype=[("labels", object)]),
            **{key: [] for key in ("icawinv", "icaweights", "icasphere", "icaact", "epoch")},
        }
        file = io.BytesIO()
        savemat(file, {"EEG": facts}, do_compression=name is None)
        made.append({"a.set": file.getvalue()} | ({name: x.tobytes("F")} if name else {}))
    return made


def csv() -> list[Files]:
    """With time, text, dates, quotes, a byte order mark, gaps, and without a header."""
    rows = [f"{i / 10},{i % 7},{i * i % 11 - 5},{'ab'[i % 2]}" for i in range(30)]
    texts = (
        "\n".join(["time,x,y,label", *rows]),
        "\ufeff" + "\r\n".join(f"{i};{i * i % 13}" for i in range(20)),
        '"a,b"\t"c ""d"""\n' + "\n".join(f"{i % 5}\t{i * i % 7}e-3" for i in range(20)),
        "\n".join(["date,x,y", *(f"2024-01-{i:02},{i % 3},{i * i % 5}" for i in range(1, 29))]),
        "a,b,c\n1,,3\n4,5,NA\n7,8,9\n",
    )
    return [{"a.csv": text.encode()} for text in texts]


def npy() -> list[Files]:
    """Of several types, by rows and by columns, and with named fields."""
    x = signal(2, 60).T
    fields = np.zeros(9, dtype=[("day", "M8[D]"), ("x", "f8"), ("y", ">i4"), ("label", "U3")])
    fields["x"], fields["y"] = np.arange(9), np.arange(9) ** 2 % 5
    arrays = (x, x.astype(np.float16), np.asfortranarray(x), (100 * x).astype(">i2"), fields)
    made = []
    for array in arrays:
        file = io.BytesIO()
        np.save(file, array)
        made.append({"a.npy": file.getvalue()})
    return made


def parquet() -> list[Files]:
    """Numbers, text, dates and gaps, packed in several ways."""
    import pandas

    x = signal(2, 80)
    frame = pandas.DataFrame({"x": x[0], "y": x[1], "label": ["a", "b"] * 40})
    frame["n"] = pandas.array([1, None] * 40, dtype="Int64")
    frame["day"] = pandas.date_range("2024-01-01", periods=80)
    made = []
    for packing in ("snappy", "gzip", "zstd", None):
        file = io.BytesIO()
        frame.to_parquet(file, compression=packing, engine="pyarrow")
        made.append({"a.parquet": file.getvalue()})
    return made


def models() -> list[Files]:
    """A fitted model; more of them where the repository has some."""
    from sourcesep import IVAE, save

    x = signal(3, 600) * np.random.default_rng(1).uniform(0.2, 2, (3, 20)).repeat(30, axis=1)
    with TemporaryDirectory() as name:
        path = Path(name) / "m.safetensors"
        save(IVAE(2, starts=("segments",), random_state=0).fit(x.T), path)
        made = [{path.name: path.read_bytes()}]
    kept = Path(__file__).parents[1] / "tests" / "model_files"
    return made + [{"m.safetensors": p.read_bytes()} for p in sorted(kept.glob("*.safetensors"))]


CORPORA: dict[str, Callable[[], list[Files]]] = {
    **{kind: (lambda kind=kind: audio(kind)) for kind in AUDIO},  # type: ignore[misc]
    "fif": raw_fif,
    "edf": lambda: edf("edf"),
    "bdf": lambda: edf("bdf"),
    "vhdr": brainvision,
    "set": eeglab,
    "csv": csv,
    "npy": npy,
    "parquet": parquet,
    "model": models,
}


# What is done to it


def mutated(corpus: list[Files], rng: Rng) -> Files:
    """Return one of the corpus with one of its files changed in a few places."""
    files = dict(corpus[rng.integers(len(corpus))])
    names = list(files)
    name = names[0] if rng.random() < 0.7 else names[rng.integers(len(names))]
    others = [content for each in corpus for content in each.values()]
    content = files[name]
    if name.endswith(".safetensors") and rng.random() < 0.7:
        content = _with_other_facts(content, rng)
    else:
        for _ in range(1 + rng.geometric(0.5)):
            content = MUTATIONS[rng.integers(len(MUTATIONS))](content, rng, others)
    if content[:4] == b"OggS" and rng.random() < 0.8:
        content = _with_page_sums(content)
    return files | {name: content[: 2**20]}


def _place(content: bytes, rng: Rng) -> int:
    """Somewhere in the content: in its head, where the promises are, its foot, or anywhere."""
    n = max(1, len(content))
    where = rng.random()
    if where < 0.5:
        return int(rng.integers(min(n, 300)))
    return n - 1 - int(rng.integers(min(n, 500))) if where < 0.7 else int(rng.integers(n))


def _flip(content: bytes, rng: Rng, _: list[bytes]) -> bytes:
    changed = bytearray(content or b"\0")
    for _i in range(rng.geometric(0.3)):
        changed[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _integer(content: bytes, rng: Rng, _: list[bytes]) -> bytes:
    """Put a number that means trouble where one may stand, in some width and order of bytes."""
    at, width = _place(content, rng), int(rng.choice((1, 2, 3, 4, 8)))
    order = "little" if rng.random() < 0.5 else "big"
    if rng.random() < 0.3:
        value = int.from_bytes(content[at : at + width], order) + int(rng.integers(-3, 4))
    else:
        value = NUMBERS[rng.integers(len(NUMBERS))]
    new = (value % 2 ** (8 * width)).to_bytes(width, order)
    return content[:at] + new + content[at + width :]


def _word(content: bytes, rng: Rng, _: list[bytes]) -> bytes:
    """Put another word where a number or a name is written in letters."""
    found = list(re.finditer(rb"[-+.\d]+|[A-Za-z_]{3,}", content[:20_000]))
    if not found:
        return content
    match = found[rng.integers(len(found))]
    word = WORDS[rng.integers(len(WORDS))].encode()
    if rng.random() < 0.5:  # in the place of what was there, so that nothing moves
        word = word[: len(match[0])].ljust(len(match[0]))
    return content[: match.start()] + word + content[match.end() :]


def _cut(content: bytes, rng: Rng, _: list[bytes]) -> bytes:
    return content[: int(rng.integers(len(content) + 1))]


def _drop(content: bytes, rng: Rng, _: list[bytes]) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + int(rng.geometric(0.05)) :]


def _repeat(content: bytes, rng: Rng, _: list[bytes]) -> bytes:
    at, size = _place(content, rng), int(rng.geometric(0.02))
    return content[:at] + content[at : at + size] * int(rng.geometric(0.05)) + content[at:]


def _fill(content: bytes, rng: Rng, _: list[bytes]) -> bytes:
    at, size = _place(content, rng), int(rng.geometric(0.1))
    fill = (b"\0" * size, b"\xff" * size, rng.bytes(size))[rng.integers(3)]
    return content[:at] + fill + content[at + size * int(rng.integers(2)) :]


def _splice(content: bytes, rng: Rng, others: list[bytes]) -> bytes:
    other = others[rng.integers(len(others))]
    at = _place(content, rng)
    return content[:at] + other[at if rng.random() < 0.5 else _place(other, rng) :]


MUTATIONS = (_flip, _integer, _integer, _word, _word, _cut, _drop, _repeat, _fill, _splice)


def _with_other_facts(content: bytes, rng: Rng) -> bytes:
    """Change what a model file says of itself or of its tensors, and keep it well-formed."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["sourcesep"])
    for _ in range(rng.geometric(0.6)):
        where = facts if rng.random() < 0.7 else header
        while True:
            keys = list(where) if isinstance(where, dict) else range(len(where))
            key = keys[rng.integers(len(keys))]
            inner = where[key]
            if not (isinstance(inner, dict | list) and inner and rng.random() < 0.8):
                break
            where = inner
        lies = (None, 0, -1, 5, 1.5, 2**40, 1e308, "x", "", True, [], {}, [1e9], {"a": None})
        where[key] = lies[rng.integers(len(lies))]
    if isinstance(header.get("__metadata__"), dict):
        header["__metadata__"]["sourcesep"] = json.dumps(facts)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _with_page_sums(content: bytes) -> bytes:
    """Put right the sums of Ogg's pages, without which no decoder looks into them."""
    pages = [match.start() for match in re.finditer(b"OggS", content)]
    whole = bytearray(content)
    for start, stop in zip(pages, [*pages[1:], len(content)], strict=True):
        if stop - start >= 27:
            whole[start + 22 : start + 26] = bytes(4)
            total = 0
            for byte in whole[start:stop]:
                total = (total << 8 & 0xFFFFFFFF) ^ _OGG[total >> 24 ^ byte]
            whole[start + 22 : start + 26] = total.to_bytes(4, "little")
    return bytes(whole)


def _ogg_table() -> list[int]:
    table = []
    for value in range(256):
        total = value << 24
        for _ in range(8):
            total = (total << 1 ^ (0x04C11DB7 if total >> 31 else 0)) & 0xFFFFFFFF
        table.append(total)
    return table


_OGG = _ogg_table()

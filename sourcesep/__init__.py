"""Source separation with an identifiable VAE (iVAE).

The public names load on first use, so that ``import sourcesep`` stays light.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

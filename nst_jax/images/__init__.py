"""Pictures: files to arrays and back, colors, masks and label maps."""

from nst_jax.images.io import DEPTHS as DEPTHS
from nst_jax.images.io import EXAMPLE as EXAMPLE
from nst_jax.images.io import EXAMPLES as EXAMPLES
from nst_jax.images.io import FORMATS as FORMATS
from nst_jax.images.io import MAX_PIXELS as MAX_PIXELS
from nst_jax.images.io import READABLE as READABLE
from nst_jax.images.io import Picture as Picture
from nst_jax.images.io import Source as Source
from nst_jax.images.io import check_bit_depth as check_bit_depth
from nst_jax.images.io import check_output as check_output
from nst_jax.images.io import check_output_size as check_output_size
from nst_jax.images.io import check_space as check_space
from nst_jax.images.io import load as load
from nst_jax.images.io import read as read
from nst_jax.images.io import read_settings as read_settings
from nst_jax.images.io import resize as resize
from nst_jax.images.io import resolve as resolve
from nst_jax.images.io import save as save
from nst_jax.images.io import size_to_fit as size_to_fit
from nst_jax.images.io import straight as straight
from nst_jax.images.io import to_uint8 as to_uint8

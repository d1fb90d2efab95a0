"""Neural style transfer in JAX: pure functions for features, statistics and losses, and one compiled loop."""

from nst_jax import images as images
from nst_jax.config import Config as Config
from nst_jax.errors import InputError as InputError
from nst_jax.errors import NotEnoughMemory as NotEnoughMemory
from nst_jax.images import label_maps as label_maps
from nst_jax.images.masks import Masks as Masks
from nst_jax.losses import TERMS as TERMS
from nst_jax.losses.base import Sum as Sum
from nst_jax.losses.base import Term as Term
from nst_jax.losses.base import View as View
from nst_jax.losses.base import Weight as Weight
from nst_jax.losses.content import CONTENT_LOSSES as CONTENT_LOSSES
from nst_jax.losses.content import ContentLoss as ContentLoss
from nst_jax.losses.style import STYLE_LOSSES as STYLE_LOSSES
from nst_jax.losses.style import StyleLoss as StyleLoss
from nst_jax.metrics import judge as judge
from nst_jax.networks import NETWORKS as NETWORKS
from nst_jax.networks.base import Network as Network
from nst_jax.networks.base import Params as Params
from nst_jax.networks.base import features as features
from nst_jax.objective.objective import Targets as Targets
from nst_jax.objective.objective import loss_terms as loss_terms
from nst_jax.objective.objective import total_loss as total_loss
from nst_jax.objective.targets import make_targets as make_targets
from nst_jax.objective.weights import LossWeights as LossWeights
from nst_jax.optimize.optimizers import OPTIMIZERS as OPTIMIZERS
from nst_jax.optimize.optimizers import Optimizer as Optimizer
from nst_jax.optimize.optimizers import Step as Step
from nst_jax.runs.transfer import Progress as Progress
from nst_jax.runs.transfer import stylize as stylize
from nst_jax.runs.transfer import stylize_steps as stylize_steps
from nst_jax.spec import Spec as Spec
from nst_jax.weights import load_vgg as load_vgg

__version__ = "0.2.0"

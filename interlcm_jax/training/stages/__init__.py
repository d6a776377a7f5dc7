"""The stages of training, in the order in which a model is made from nothing; the last is InterLCM's own training."""

from interlcm_jax.training.stages.autoencoder import Autoencoder
from interlcm_jax.training.stages.distillation import Distillation
from interlcm_jax.training.stages.image_encoder import ImageEncoder
from interlcm_jax.training.stages.prior import Prior
from interlcm_jax.training.stages.restoration import Restoration
from interlcm_jax.training.stages.warm_up import WarmUp

AnyStage = Autoencoder | ImageEncoder | Prior | Distillation | WarmUp | Restoration

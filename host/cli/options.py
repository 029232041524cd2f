"""What options of several commands say."""

from __future__ import annotations

READS = "When weights are read again: once per trial (load), batch or image, or at each use (access)."
MODEL = "digits-bnn, digits-qnn, fashion-bnn, or an ONNX file."
DATA = "digits, fashion-mnist, cifar-10, svhn, imagenette, or an .npz with x and optionally y. [default: the network's own]"
PLACE = "Put a layer or tensor, or bits of it, elsewhere, as in conv1@7=uniform:ber=0. Repeatable."
TASK = (
    "What the output means: classes[:top=K], logit[:threshold=T], labels, tokens, pixels[:axis=last,ignore=255] or values. "
    "[default: as graph and labels say]"
)
OUTPUT = "The output that is judged. [default: the only one that fits]"

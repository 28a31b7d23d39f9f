"""Train one LoRA run (`lora`): settings, base model, early end, trackers, export. Needs torch."""

import os

# Otherwise every trainer reports its start to the hub, from CI too. Set before any module of this
# room imports the hub's library, which reads it then. A user's own value is kept.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

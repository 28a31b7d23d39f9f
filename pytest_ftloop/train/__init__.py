"""Train one LoRA run (`lora`): settings, base model, early end, trackers, export. Needs torch."""

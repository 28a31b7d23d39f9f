"""TORCH: one LoRA run, its early end, its adapter and the export."""

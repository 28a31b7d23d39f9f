"""Read the output of any Hugging Face trainer: `trainer_state.json` and adapter files."""

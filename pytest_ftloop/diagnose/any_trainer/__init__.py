"""Read what any trainer left: `trainer_state.json` and adapter files, without torch."""

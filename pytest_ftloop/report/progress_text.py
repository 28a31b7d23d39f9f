"""The line that says how far a training is."""

from __future__ import annotations

from pytest_ftloop.report.escape import columns_of, one_line, shorten


def progress_line(
    loop: str,
    which: str,
    step: int,
    steps: int,
    loss: float,
    elapsed_s: float,
    width: int = 80,
    before: int = 0,
) -> str:
    """`sentiment  iteration 2/4  step 31/66 [=====>    ] loss 1.234  0:12 left`, within `width`.

    `elapsed_s` counts from the first step of this process, `before` are the steps before that one.
    """
    is_running = before < step < steps
    left_s = elapsed_s / (step - before) * (steps - step) if is_running else 0.0
    time = f"{_clock(left_s)} left" if is_running else _clock(elapsed_s)
    name = one_line(loop, max(width // 3, 8))
    progress = f"step {step}/{steps}"
    value = f"loss {loss:.3f}" if not abs(loss) >= 1e4 else f"loss {loss:.1e}"
    candidates = (
        f"{name}  {which}  {progress} {_bar(step, steps)} {value}  {time}",
        f"{name}  {which}  {progress}  {value}  {time}",
        f"{which}  {progress}  {value}  {time}",
        f"{progress}  {value}  {time}",
    )
    return next(
        (text for text in candidates if columns_of(text) <= width), shorten(progress, width)
    )


def _bar(done: int, of: int, size: int = 10) -> str:
    filled = min(size, max(0, size * done // of)) if of > 0 else 0
    bar = "=" * filled + (">" if filled < size else "")
    return f"[{bar:<{size}}]"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return (
        f"{minutes}:{rest:02d}"
        if minutes < 60
        else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
    )

"""When to give Label Studio work, so that nobody who labels has to wait for it.

Label Studio serves every request from one Python process and, with SQLite, one writer: while it
imports predictions (3-5 s for 5,000, most of it a recount of the whole project that any import
pays), a submit takes up to 2 s instead of 0.1 s. One import in a pause between two submits costs
nobody anything; many small ones would each pay the recount. So: one request, at a good moment.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

# A person who has not submitted for this long is taken to be away.
AWAY_S = 30.0
# After a submit Label Studio still serves the next task.
SETTLE_S = 0.3
# Submits closer than this come from a program or from two people: they set no rhythm.
BURST_S = 0.4
# After a submit that belongs to no known rhythm yet, another may come between these.
FIRST_GAP_S = (1.5, 3.0)
# What a request takes that can as well wait for that.
BRIEF_S = 0.3
# Until so many gaps were seen, a shorter one than any of them is likely.
MANY_GAPS = 20
EARLY = 0.8


def seconds_until_good_moment(
    submits: Sequence[float], now: float, *, takes_s: float, waited_s: float, patience_s: float
) -> float:
    """How long to wait before giving Label Studio a request of `takes_s` seconds.

    Args:
        submits: times of the latest submits, ascending, in the clock of `now`.
        now: the present.
        takes_s: seconds the request is expected to keep Label Studio busy.
        waited_s: seconds already waited.
        patience_s: seconds after which the request goes out right after the next submit,
            and a `SETTLE_S` later at the latest.

    Returns:
        0 for now; otherwise seconds until the answer is worth asking for again.
    """
    if not submits:
        return 0.0
    since = now - submits[-1]
    if since < SETTLE_S:
        return SETTLE_S - since
    gap = usual_gap(submits)
    soon, over = FIRST_GAP_S
    if gap is None and takes_s <= BRIEF_S and soon - takes_s < since < over:
        return over - since
    if gap is None or since > max(2.0 * gap, 1.0) or since > AWAY_S:
        # Nobody in a rhythm: a first submit after a pause tells nothing of the next.
        return 0.0
    if since + takes_s <= gap:
        return 0.0
    if waited_s >= patience_s and since <= SETTLE_S + 0.25:
        return 0.0
    if waited_s >= patience_s + AWAY_S:
        return 0.0
    return 0.1


def usual_gap(submits: Sequence[float]) -> float | None:
    """A cautious guess of the seconds between two submits: one recent gap in 20 is shorter.

    Not the lower quartile: then a small request runs into every 20th submit, and the slowest of
    them are what people notice.

    Returns:
        ``None`` with fewer than three gaps that are neither pauses nor bursts.
    """
    gaps = sorted(b - a for a, b in itertools.pairwise(submits) if BURST_S <= b - a <= AWAY_S)
    if len(gaps) < 3:
        return None
    return gaps[len(gaps) // 20] * (1.0 if len(gaps) >= MANY_GAPS else EARLY)


def rest_after(took_s: float, submits: Sequence[float], now: float) -> float:
    """Seconds to rest after one small request of a long series, such as deleting predictions.

    While people label, the series may use a fifth of Label Studio's time; otherwise two thirds.
    """
    busy = bool(submits) and now - submits[-1] < AWAY_S
    return took_s * (4.0 if busy else 0.5)

"""Writes src/budget/zones.txt, the time zones the filter knows, and tests/windows.tsv, what Python says of them.

    python3 tools/zones.py rules > src/budget/zones.txt
    python3 tools/zones.py spans 320 > tests/windows.tsv

It needs the Python package `tzdata`, whose release it writes. The rule of a zone is the last line of its TZif file,
which says how clocks go after the last change the file lists. `spans ROWS [SEED]` chooses instants at random, half of
them near changes of clocks, and computes the window around each with Python's own `zoneinfo`, which reads all of it.
"""

import collections
import datetime
import functools
import importlib.resources
import io
import random
import struct
import sys
import zoneinfo

import tzdata

# The package, never the system's files.
zoneinfo.reset_tzpath([])

FIRST_YEAR = int(tzdata.IANA_VERSION[:4])
LAST_YEAR = 2040
DAY = 86_400
WINDOWS = {"minute": 60, "hour": 3600, "day": DAY, "week": 7 * DAY, "month": 1, "quarter": 3, "year": 12}


def tzif(name: str) -> bytes:
    return importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


def names() -> list[str]:
    return importlib.resources.files("tzdata").joinpath("zones").read_text().split()


def rule(name: str) -> str:
    return tzif(name).rsplit(b"\n", 2)[1].decode()


def only_rule(rule: str) -> zoneinfo.ZoneInfo:
    """A zone that has never followed anything but `rule`."""
    block = struct.pack(">4sc15x6l", b"TZif", b"2", 0, 0, 0, 0, 1, 1) + struct.pack(">lbB", 0, 0, 0) + b"\0"
    return zoneinfo.ZoneInfo.from_file(io.BytesIO(block + block + b"\n" + rule.encode() + b"\n"))


def unix(*date: int) -> int:
    return int(datetime.datetime(*date, tzinfo=datetime.timezone.utc).timestamp())


def offset(zone: zoneinfo.ZoneInfo, instant: int) -> int:
    return int(datetime.datetime.fromtimestamp(instant, zone).utcoffset().total_seconds())


def astray(name: str, first_year: int) -> tuple[str, str] | None:
    """The first and the last day of these years on which the zone is not always where its rule says."""
    zone, plain = zoneinfo.ZoneInfo(name), only_rule(rule(name))
    times = range(unix(first_year, 1, 1), unix(LAST_YEAR + 1, 1, 1), DAY // 2)
    found = [time for time in times if offset(zone, time) != offset(plain, time)]
    day = lambda time: datetime.datetime.fromtimestamp(time, datetime.timezone.utc).date().isoformat()
    return (day(found[0]), day(found[-1])) if found else None


def write_rules() -> None:
    by_rule = collections.defaultdict(list)
    exceptions = collections.defaultdict(list)
    for name in sorted(names()):
        by_rule[rule(name)].append(name)
        if days := astray(name, FIRST_YEAR):
            exceptions[" to ".join(days)].append(name)
    release = f"tzdata {tzdata.__version__} ({tzdata.IANA_VERSION})"
    print(f"# {release}, written by tools/zones.py: a rule, then the names it is for.")
    for dates, astray_names in sorted(exceptions.items()):
        print(f"# Not by their rule at times from {dates}: {' '.join(astray_names)}")
    for rule_text, rule_names in sorted(by_rule.items()):
        print(rule_text, *rule_names)


@functools.cache
def changes(name: str) -> list[int]:
    """The instants from which on the zone's clocks are others."""
    zone, found = zoneinfo.ZoneInfo(name), []
    for low in range(unix(FIRST_YEAR, 1, 1), unix(LAST_YEAR + 1, 1, 1), DAY):
        high = low + DAY
        if offset(zone, low) == offset(zone, high):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if offset(zone, middle) == offset(zone, high):
                high = middle
            else:
                low = middle
        found.append(high)
    return found


def span(name: str, window: str, starts_on: int, instant: int) -> tuple[int, int]:
    """The window that contains the instant."""
    zone, length = zoneinfo.ZoneInfo(name), WINDOWS[window]
    local = datetime.datetime.fromtimestamp(instant, zone)

    if window in ("minute", "hour"):
        own = offset(zone, instant)
        start = instant - (instant + own) % length
        end = start + length
        # A change by less than the window's length ends it.
        for change in changes(name):
            if (offset(zone, change) - offset(zone, change - 1)) % length and start < change < end:
                start, end = (change, end) if change <= instant else (start, change)
        return start, end

    def midnight(day: datetime.date) -> int:
        return int(datetime.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())

    day = local.date()
    if window in ("day", "week"):
        first = day - datetime.timedelta(day.weekday() if window == "week" else 0)
        return midnight(first), midnight(first + datetime.timedelta(length // DAY))
    month = day.year * 12 + day.month - 1 - (day.day < starts_on)
    month -= month % length
    return tuple(midnight(datetime.date(m // 12, m % 12 + 1, starts_on)) for m in (month, month + length))


def write_spans(rows: int, seed: int) -> None:
    choose = random.Random(seed)
    # A year around the first instant may have begun the year before.
    zones = [name for name in sorted(names()) if not astray(name, FIRST_YEAR - 1)]
    moving = [name for name in zones if changes(name)]
    print("# Python's zoneinfo, by tools/zones.py, with tzdata", tzdata.__version__)
    print("zone", "window", "starts_on", "instant", "offset", "start", "end", sep="\t")
    for row in range(rows):
        window = choose.choice(list(WINDOWS))
        starts_on = choose.choice([1, 1, choose.randint(2, 28)])
        if row % 2:
            name = choose.choice(zones)
            instant = choose.randrange(unix(FIRST_YEAR, 1, 1), unix(LAST_YEAR + 1, 1, 1))
        else:
            name = choose.choice(moving)
            near = choose.choice([1, 1800, 3600, DAY, 20 * DAY])
            instant = choose.choice(changes(name)) + choose.randint(-near, near)
        start, end = span(name, window, starts_on, instant)
        print(name, window, starts_on, instant, offset(zoneinfo.ZoneInfo(name), instant), start, end, sep="\t")


match sys.argv[1:]:
    case ["rules"]:
        write_rules()
    case ["spans", rows, *seed]:
        write_spans(int(rows), int(seed[0]) if seed else 1)
    case _:
        sys.exit(__doc__)

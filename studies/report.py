"""Everything that is computed from the study's rows: text of docs/study.md and README, a figure."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import does_spd_help as study
import longer
import numpy as np
import pandas as pd
import testsets

from spdlib import intervals, paper, paths
from spdlib.notebooks.figures import study as figures
from spdlib.notebooks.figures import style

DOCS, PICTURE = paths.root() / "docs" / "study.md", paths.root() / "docs" / "study.png"
SHOWN = (
    "simsiam",
    "spd",
    "spd_0.1",
    "image",
    "context",
    "cutpaste",
    "simsiam_frozen",
    "dense_pull",
)
ONLY_TITLES = {m: title.replace("\n", ", ") for m, (_, _, title) in figures.MEASURES.items()}
SPOT = {n: ("spot", f"{n}, AU-ROC", n) for n in (
    "SmoothBlend, zero", "rim alone", "SmoothBlend, mean", "SmoothBlend, image",
    "SmoothBlend, context", "hard paste", "CutPaste")}  # fmt: skip
SHADES = {f"{s}, {m}": (f"elpv {s}", n, f"{m}, {s}")
          for m, n in (("neighbours", testsets.NEIGHBOURS), ("PaDiM, pixels", testsets.PIXELS))
          for s in ("dark", "bright")}  # fmt: skip
OTHERS = {
    "Mahalanobis, defective cells": ("elpv", "Mahalanobis, images, AU-ROC"),
    "Mahalanobis, painted": ("elpv painted", "Mahalanobis, images, AU-ROC"),
    "Mahalanobis, screws": ("mvtec", "Mahalanobis, images, AU-ROC"),
    "PaDiM, painted, AU-PRO": ("elpv painted", "PaDiM, pixels, AU-PRO"),
    "PaDiM, screws, AU-PRO": ("mvtec", "PaDiM, pixels, AU-PRO"),
    "PaDiM, screws, images": ("mvtec", "PaDiM, images, AU-ROC"),
    "cells of stage 2, AU-PR": ("deeppcb", "cells of stage 2, AU-PR"),
}
VALIDATION = {
    "neighbours": ("validation", testsets.NEIGHBOURS), "PaDiM": ("validation", testsets.PIXELS)
}  # fmt: skip
SCRATCH = ("random", "scratch", "scratch_spd")
RELEASING = list(figures.MEASURES)[:6]


def write() -> int:
    """Fills the blocks of docs/study.md and README.md, and draws the figure."""
    rows = study.read()
    found = figures.values(rows)
    compared, claims = figures.against_baselines(found), figures.claims(found)
    fill(DOCS, "results", results(rows, found, compared, claims))
    fill(DOCS, "longer", longer_results(longer_rows()))
    style.use()
    PICTURE.write_bytes(style.png(figures.figure(compared, SHOWN)))
    fill(paths.root() / "README.md", "study", front(found, claims))
    return 0


def longer_rows() -> pd.DataFrame:
    """The longer trainings, and the untrained networks that they started from."""
    rows = study.read()
    return pd.concat([study.read(longer.CSV), rows[rows.arm.isin(study.UNTRAINED)]])


def fill(path: Path, name: str, text: str) -> None:
    """Puts a text between ``<!-- name -->`` and ``<!-- /name -->``."""
    whole = path.read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- {name} -->).*?(<!-- /{name} -->)", re.S)
    if not block.search(whole):
        raise ValueError(f"{path}: no block {name}")
    path.write_text(block.sub(lambda m: f"{m[1]}\n{text}\n{m[2]}", whole), encoding="utf-8")


def results(rows, found, compared, claims) -> str:
    """The results of docs/study.md."""
    trainings = rows[["arm", "seed"]].drop_duplicates()
    seconds = rows.drop_duplicates(["arm", "seed"]).seconds.sum()
    choice = study.chosen(rows)
    seeds = found.groupby("arm").size()
    missing = [arm for arm in study.ARMS if seeds.get(arm, 0) < (1 if arm == "imagenet" else 3)]
    started = [(arm, "imagenet") for arm in study.ARMS if arm not in ("imagenet", *SCRATCH)]
    parts = [
        f"{len(rows):,} values of {len(trainings)} cells, {seconds / 60:.0f} minutes of one core "
        f"({', '.join(sorted(rows.machine.unique()))}).",
        f"**Chosen on validation images**: rate {choice['pooled']:g}, for dense SPD "
        f"{choice['dense']:g} (both at a batch of 256).",
        f"**Not run with three seeds**: {', '.join(f'`{arm}`' for arm in missing) or 'none'}.",
        "### The claims",
        markdown(claim_table(claims), "claim"),
        "### What each arm has over the one it is compared with",
        "![Differences by training seed](study.png)",
        "Dots are training seeds, lines 95 % intervals, in colour where one alone excludes zero.",
        markdown(gain_table(compared, ONLY_TITLES), "arm"),
        "### What each arm has over the ImageNet encoder that it started from",
        markdown(gain_table(figures.differences(found, started), ONLY_TITLES), "arm"),
        "### Values, mean over seeds",
        markdown(value_table(found, ONLY_TITLES), "arm"),
    ]
    for heading, measures in (
        ("Spot the difference, by what differs", SPOT),
        ("Dark and bright painted defects", SHADES),
        ("Other measures", OTHERS),
    ):
        other = figures.values(rows, measures)
        parts += [f"### {heading}", markdown(value_table(other, dict.fromkeys(measures)), "arm")]
    parts += ["### The encoder that might be released", release(rows, found)[1]]
    return "\n\n".join(parts)


def longer_results(rows: pd.DataFrame) -> str:
    """The results of longer trainings."""
    found, trained = figures.values(rows), rows[rows.arm.isin(longer.ARMS)]
    seeds = trained.groupby("arm").seed.nunique()
    explored = figures.differences(found, [*longer.EXPLORED, *longer.STARTED])
    spot, arms = figures.values(rows, SPOT), [*study.UNTRAINED, *longer.ARMS]
    return "\n\n".join([
        f"{len(trained):,} values of {seeds.sum()} cells "
        f"({', '.join(sorted(trained.machine.unique()))}); seeds: "
        + ", ".join(f"`{arm}` {seeds[arm]}" for arm in longer.ARMS) + ".",
        markdown(claim_table(figures.claims(found, longer.CLAIMED)), "claim"),
        "Exploration, and what each arm has over the network that it started from:",
        markdown(gain_table(explored, ONLY_TITLES), "arm"),
        "Values, mean over seeds:",
        markdown(value_table(found, ONLY_TITLES, arms), "arm"),
        "Spot the difference, by what differs:",
        markdown(value_table(spot, dict.fromkeys(SPOT), arms), "arm"),
    ])  # fmt: skip


def claim_table(claims: pd.DataFrame) -> pd.DataFrame:
    """One claim a row, in words."""
    table = {}
    for row in claims.itertuples():
        verdict = ("raises" if row.mean > 0 else "lowers") if row.holds else "open"
        name = f"`{row.arm}` − `{row.baseline}`: {ONLY_TITLES[row.measure]}"
        table[name] = {
            "difference": f"{row.mean:+.1f}", "95 %": f"{row.low:+.1f} to {row.high:+.1f}",
            "seeds": row.n, "p": f"{row.p:.3f}", "Holm": f"{row.adjusted:.3f}", "verdict": verdict,
        }  # fmt: skip
    return pd.DataFrame(table).T


def gain_table(compared: pd.DataFrame, titles: dict) -> pd.DataFrame:
    """Differences with intervals, a row an arm."""
    names = [f"`{row.arm}` − `{row.baseline}`" for row in compared.itertuples()]
    order = list(dict.fromkeys(names))
    cells = figures.cells(compared.assign(arm=names)).unstack("measure")
    return cells.loc[order, list(titles)].rename(columns=titles)


def value_table(found: pd.DataFrame, titles: dict, arms: Sequence[str] = ()) -> pd.DataFrame:
    """Means over seeds, a row an arm."""
    means = found.groupby("arm").mean()
    counts = found.groupby("arm").size().rename("seeds")
    order = [arm for arm in arms or study.ARMS if arm in means.index]
    text = means.loc[order].map(lambda v: "–" if np.isnan(v) else f"{v:.1f}")
    text = text.rename(columns={m: t for m, t in titles.items() if t})
    text.insert(0, "seeds", counts[order])
    return text.rename(index="`{}`".format)


def release(rows: pd.DataFrame, found: pd.DataFrame) -> tuple[str | None, str]:
    """The arm that validation images choose, if it is to be released, and what there is to say."""
    kept = figures.values(rows, VALIDATION).xs(0, level="seed").sum(axis=1)
    best = kept.drop(["imagenet", "random"], errors="ignore").idxmax()
    table = figures.differences(found[RELEASING], [(best, "imagenet")])
    table["adjusted"] = intervals.holm(table.p.fillna(1))
    better = table[(table.adjusted < 0.05) & (table["mean"] > 0)]
    worse = table[table.high < 0]
    earned = len(better) > 0 and worse.empty
    said = (
        f"Best on validation images at seed 0: `{best}` (sum {kept[best]:.1f}; ImageNet as it is "
        f"{kept['imagenet']:.1f}). Against ImageNet on test images, after Holm's correction over "
        f"six: better by {_named(better)}; worse, by an interval that excludes zero, by "
        f"{_named(worse)}. So it is {'' if earned else 'not '}released."
    )
    return (best if earned else None), said


def front(found: pd.DataFrame, claims: pd.DataFrame) -> str:
    """The README's sentences and picture."""
    counts = paper.sign_counts(paper.gains()).query("suspect == 0")
    own = claims[claims.arm == "spd"]
    told = own[(own.low > 0) | (own.high < 0)]
    start = figures.differences(found, [("spd", "imagenet")])
    held, later = (
        claims[claims.holds],
        figures.claims(figures.values(longer_rows()), longer.CLAIMED),
    )
    total = len(own)
    text = (
        f"In the paper it does: where its tables on VisA are sound, + SPD raises the mean of "
        f"{(counts['mean'] > 0).sum()} of {len(counts)} comparisons. Here, after {study.STEPS} "
        f"steps from ImageNet weights, {len(held) or 'none'} of {len(claims)} claims hold after "
        f"correction ([a study](docs/study.md), {own.n.max()} training seeds). Taken alone, what "
        f"SPD adds to SimSiam is told from zero by {len(told)} of {total} measures: "
        f"{_named(told)} points. Against the ImageNet encoder that it started from it is above by "
        f"{(start.low > 0).sum()} of {total} and below by {(start.high < 0).sum()}. After longer "
        f"trainings, {later.holds.sum() or 'none'} of {len(later)} claims hold either (section 6)."
    )
    picture = "![Differences in percentage points, by training seed](docs/study.png)"
    return f"{textwrap.fill(text, 99, break_on_hyphens=False)}\n\n{picture}"


def _named(rows: pd.DataFrame) -> str:
    said = [f"{ONLY_TITLES[row.measure]} {row.mean:+.1f}" for row in rows.itertuples()]
    return "; ".join(said) or "none"


def markdown(table: pd.DataFrame, corner: str) -> str:
    """A table of text as Markdown."""
    lines = [[corner, *table.columns], ["---"] * (len(table.columns) + 1)]
    lines += [[name, *row] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)

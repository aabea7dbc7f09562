# %% [markdown]
# # Is the other one really faster?
#
# `bench.compare` measures two backends, engines or addresses in turn, in one run, and calls a difference real only where it
# is. The two of this notebook are echo engines; addresses work the same: `bench.compare("old-box:5000", "new-box:5001")`.

# %%
from hydra_infer import bench
from hydra_infer.engines.echo import echo

options = {
    "kinds": ["chat"],
    "parallel": [1, 2],
    "max_tokens": 12,
    "quality": False,
    "seed": 7,
    "progress": False,
}
with echo(delay=0.006, ttft=0.02, slots=4) as a, echo(delay=0.009, ttft=0.02, slots=4) as b:
    report = bench.compare(a, b, **options)
report

# %% [markdown]
# ## And where there is no difference?

# %%
with echo(delay=0.006, ttft=0.02, slots=4) as a, echo(delay=0.006, ttft=0.02, slots=4) as b:
    same = bench.compare(a, b, **options)
print(same.verdict)

# %% [markdown]
# The ratios are b over a, for programs; `report.rows` are flat dictionaries for a data frame, `report.to_json()` has every
# measurement.

# %%
print(f"decode {report.decode_ratio:.2f}, first token {report.ttft_ratio:.2f}")

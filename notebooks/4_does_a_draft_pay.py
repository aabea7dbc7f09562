# %% [markdown]
# # Does a draft pay?
#
# A small model drafts some tokens ahead, the large one checks them in one pass. That is faster where enough of them are
# accepted, and slower where they are not, or where several requests share the card.

# %%
import hydra_infer as hydra

MODELS = "../examples/homelab/models"
cards = ["RTX 5090", "RTX 4090"]
options = {"bpw": 4.0, "format": "exl3", "gpus": cards, "context": "16k", "cache": "q8"}
plan = hydra.plan(f"{MODELS}/Llama-3.1-70B.json", **options)
print(plan.speed)

# %% [markdown]
# ## What the planner expects
#
# `draft=` takes a small model, `"mtp"` (a head that some models have) or `"ngram"` (the text so far, which costs nothing to
# load).

# %%
drafted = plan.replan(draft="ngram", draft_tokens=4)
print(drafted.draft.why)

# %%
print("tokens ahead   prose  mixed   code   break-even")
for tokens in (1, 2, 4, 6, 8):
    judged = plan.replan(draft="ngram", draft_tokens=tokens).draft
    low, likely, high = judged.speedup
    print(f"{tokens:12}  {low:6.2f} {likely:6.2f} {high:6.2f}   {judged.break_even:.0%} accepted")

# %% [markdown]
# Several requests at once use the spare arithmetic that checking lives from:

# %%
for slots in (1, 2, 4):
    judged = plan.replan(draft="ngram", draft_tokens=4, slots=slots).draft
    print(f"{slots} at once {'pays' if judged.pays else 'does not pay'}: {judged.why}")

# %% [markdown]
# ## What is measured
#
# The planner's figures are expectations; `bench.sweep` measures. Echo engines stand for the two ways of loading here: without
# a draft a word takes 8 ms, with one of two tokens 5, with one of six 10, which is what too long a draft does. With a real
# model it is `bench.sweep(lambda n: hydra.load(folder, draft="mtp" if n else None, draft_tokens=n or None, slots=4))`.

# %%
from hydra_infer import bench
from hydra_infer.engines.echo import echo

delays = {0: 0.008, 2: 0.005, 6: 0.010}
advice = bench.sweep(
    lambda tokens: echo(delay=delays[tokens]),
    lengths=(2, 6),
    parallel=(1,),
    kinds=("chat",),
    repetitions=10,
    max_tokens=16,
    progress=False,
)
print(advice)

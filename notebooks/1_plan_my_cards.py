# %% [markdown]
# # Plan my cards
#
# Will a 70B model fit on an RTX 5090 and an RTX 4090, with how much context, and what is to be given up for more? Nothing is
# loaded here and no card is needed: a model's `config.json` is enough, and the cards are named.

# %%
import hydra_infer as hydra

MODELS = "../examples/homelab/models"
cards = ["RTX 5090", "RTX 4090"]  # on the machine that has them: hydra.gpus()
plan = hydra.plan(f"{MODELS}/Llama-3.1-70B.json", bpw=4.0, format="exl3", gpus=cards, context="64k")
plan

# %% [markdown]
# One bar a card, on one scale. The frame is what is free; a bar that leaves it does not fit. What would help has been tried:

# %%
for remedy in plan.suggestions:
    print(remedy.why)

# %%
better = plan.suggestions[0].plan
better

# %% [markdown]
# That is what TabbyAPI is to be told:

# %%
print(better.tabby_config())

# %% [markdown]
# ## Many plans at once
#
# Three models, three caches. A row in red does not fit; `max context` is how far the row could go.

# %%
names = ["Llama-3.1-70B", "Qwen2.5-14B", "Llama-3.1-8B"]
hydra.survey(
    [f"{MODELS}/{name}.json" for name in names],
    gpus=cards,
    contexts="128k",
    caches=["fp16", "q8", "q4"],
    bpws=4.0,
    format="exl3",
)

# %% [markdown]
# ## What is traded for what
#
# One model at eight rates with three caches. The filled dots are those that no other beats both in bits per weight and in
# context; what it costs in quality to have a 4-bit cache is not in the picture, and is yours to judge.

# %%
survey = hydra.survey(
    f"{MODELS}/Llama-3.1-70B.json",
    gpus=cards,
    contexts="8k",
    caches=["fp16", "q8", "q4"],
    bpws=[2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6],
    format="exl3",
)
survey.pareto("max_context", "bpw")

# %% [markdown]
# The rows are plain dictionaries: `pandas.DataFrame(survey.rows)` takes them as they are.

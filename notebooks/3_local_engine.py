# %% [markdown]
# # A model in this process
#
# SmolLM2-135M, a small real model that a Python package brings along, on the processor. An EXL3 folder on your own cards is
# loaded in the same way. A bar shows how far loading is; it is switched off here, because outputs are kept.

# %%
import hydra_infer as hydra

engine = hydra.load("smollm2", context=2048, threads=1, slots=2, progress=False)
print(engine.load_report)

# %%
reply = engine.chat("What does a GPU do? Answer in one sentence.", max_tokens=40, temperature=0)
print(reply.text)
usage, speed = reply.usage, reply.timings.decode_tps
print(f"{usage.prompt_tokens} tokens in, {usage.completion_tokens} out, {speed:.0f} per second")

# %% [markdown]
# In pieces, and stopped early: leaving a stream ends the work on it.

# %%
with engine.stream("Tell me about the sea.", max_tokens=200, temperature=0) as stream:
    for place, chunk in enumerate(stream):
        print(chunk, end="")
        if place == 20:
            break

# %% [markdown]
# Several at once, in order, errors in their places.

# %%
questions = ["Name three planets.", "What is 2 plus 2?", "How many days has a week?"]
answers = engine.batch(questions, max_tokens=16, temperature=0, progress=False)
for question, reply in zip(questions, answers, strict=True):
    print(f"{question:26} {reply.text!r}")

# %% [markdown]
# An answer in a given form: the grammar is held to while the tokens are drawn, so even a very small model keeps to it.

# %%
city = {"type": "string", "maxLength": 20}
schema = {"type": "object", "properties": {"city": city}, "required": ["city"]}
form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
print(engine.chat("A city, as JSON.", max_tokens=40, temperature=0, response_format=form).text)

# %%
print(engine.stats())
engine.close()

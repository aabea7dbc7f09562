# %% [markdown]
# # Route, and fail over
#
# A Router over a server that is down, one that takes a single request at a time, and one that takes all. The two that are up
# are echo engines, which say back what they are told.

# %%
import hydra_infer as hydra
from hydra_infer.engines.echo import echo

fast = echo(model="fast")
slow = echo(model="slow", delay=0.05)
router = hydra.Router(
    [
        hydra.Backend.tabby("http://gpu-box.invalid:5000", {"chat": "Llama-3.1-70B"}, name="gpu-box"),
        hydra.Backend.engine(slow, models=["chat"], name="old-box", max_parallel=1),
        hydra.Backend.engine(fast, models=["chat", "small"], name="laptop"),
    ],
    fallbacks={"chat": ["small"]},
    queue_timeout=0.2,
)
print(router.explain("chat"))

# %%
reply = router.chat("chat", "What is a hydra?")
print(reply.text)
for attempt in reply.attempts:
    print("-", attempt)

# %% [markdown]
# The dead server rests now; nobody waits for it again until one request has found out whether it is back.

# %%
router.status()

# %% [markdown]
# ## In a notebook, `await` works as well
#
# `router.aio` is the same router with `await`. Three questions at once: the old box takes one at a time, the others go on to
# the next.

# %%
import asyncio

questions = [f"one two three four five, number {number}" for number in range(3)]
replies = await asyncio.gather(*(router.aio.chat("chat", question) for question in questions))
for reply in replies:
    print(reply.backend, "|", reply.text)

# %% [markdown]
# A stream, piece by piece:

# %%
async for chunk in router.aio.stream("chat", "piece by piece by piece"):
    print(chunk, end="|")

# %% [markdown]
# ## When everything fails, the error says what was tried

# %%
names = ["gpu-box", "old-box"]
boxes = [hydra.Backend.openai(f"http://{name}.invalid:8000", models=["chat"], name=name) for name in names]
lost = hydra.Router(boxes, retries=0)
try:
    lost.chat("chat", "hello")
except hydra.HydraError as error:
    print(type(error).__name__)
    print(error)

# %% [markdown]
# ## What was used

# %%
router.usage()

# %%
await router.aio.close()
router.close()
lost.close()
fast.close()
slow.close()

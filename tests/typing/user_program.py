"""A program that uses cosd, for mypy --strict: correct calls pass, and every ignored error must occur.

`make types` checks it against the sources, `scripts/check_wheel.sh` against the installed wheel, each with
pydantic's mypy plugin and without. An ignore comment on a line without an error is an error under --strict.
"""

from typing import assert_type

from langchain_core.messages import AIMessage
from pydantic import BaseModel, SecretStr
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase

from cosd_core import Chat, Chunk, CoSDDecoder, Generation, LanguageModel, RuleVerifier
from langchain_cosd import ChatCoSD
from langchain_cosd import CoSDLLM as LangChainLLM
from llama_index_cosd import CoSDLLM as LlamaIndexLLM


class Person(BaseModel):
    name: str


def core() -> None:
    model = LanguageModel.from_pretrained(
        "org/model-b", adapter="org/lora", dtype="bfloat16", device="cuda:1"
    )
    decoder = CoSDDecoder.from_pretrained(
        draft="org/model-a",
        assistant=[model, "org/model-c"],
        verifier=[RuleVerifier(alpha=0.3), "rule"],
        calibration=[1.5, 1, 1],
        dtype="bfloat16",
        quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True},
    )
    one = decoder.generate(
        "text", max_new_tokens=64, temperature=1, stop=["\n"], eos_token_id=7, grammar=Person
    )
    assert_type(one, Generation)
    several = decoder.generate([[1, 2], "text", Chat([{"role": "user", "content": "text"}])], stop="\n")
    assert_type(several, list[Generation])
    for chunk in decoder.stream("text", seed=1, logits_processor=[], grammar={"type": "object"}):
        assert_type(chunk, Chunk)

    decoder.generate("text", temperature=None, top_p=None, max_new_tokens=None, share_batches=True)

    decoder.generate("text", max_new_token=64)  # type: ignore[call-overload]
    decoder.generate("text", max_new_tokens="64")  # type: ignore[call-overload]
    decoder.stream("text", temprature=0.5)  # type: ignore[call-arg]
    decoder.steps("text", top_k=0.5)  # type: ignore[arg-type]
    decoder.astream("text", stops=["\n"])  # type: ignore[call-arg]
    CoSDDecoder.from_pretrained(draft="a", assistant="b", dtyp="float16")  # type: ignore[call-arg]
    CoSDDecoder.from_pretrained(draft="a", asistant="b")  # type: ignore[call-arg]
    CoSDDecoder.from_pretrained(draft="a", assistant="b", local_files_only=1)  # type: ignore[arg-type]
    LanguageModel.from_pretrained("a", trust_remote=True)  # type: ignore[call-arg]


async def asynchronous(decoder: CoSDDecoder) -> None:
    assert_type(await decoder.agenerate("text", max_new_tokens=3), Generation)
    await decoder.agenerate("text", max_tokens=3)  # type: ignore[call-overload]


def loaded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pipe: Pipeline) -> None:
    CoSDDecoder.from_pretrained(
        draft=(model, tokenizer), assistant=[pipe, "b", LanguageModel(model, tokenizer)]
    )
    CoSDDecoder.from_pretrained(draft="a", assistant=pipe, dtype=None)
    ChatCoSD(draft_model=(model, tokenizer), assistant_model=[pipe, "b"], temperature=None, top_p=None)
    LlamaIndexLLM(draft_model=pipe, assistant_model=(model, tokenizer), temperature=None, max_tokens=None)

    CoSDDecoder.from_pretrained(draft=model, assistant="b")  # type: ignore[arg-type]
    ChatCoSD(draft_model=model, assistant_model="b")  # type: ignore[arg-type]


def langchain() -> None:
    chat = ChatCoSD(
        draft_model="a",
        assistant_model=["b", "c"],
        max_tokens=5,
        stop=["\n"],
        verifier=["rule", RuleVerifier()],
        calibration=[1, 1, 2.5],
        api_key="x",
        tags=["tag"],
    )
    assert_type(chat.invoke("text"), AIMessage)
    llm = LangChainLLM(draft_model="a", assistant_model="b", alpha=0.5, eos_token_id=[2], grammar=Person)
    assert_type(llm.invoke("text"), str)

    ChatCoSD(draft_modell="a", assistant_model="b")  # type: ignore[call-arg]
    ChatCoSD(draft_model="a")  # type: ignore[call-arg]
    ChatCoSD(draft_model="a", assistant_model="b", max_token=5)  # type: ignore[call-arg]
    ChatCoSD(draft_model="a", assistant_model="b", draft_length="8")  # type: ignore[arg-type]
    LangChainLLM(draft_model="a", assistant_model="b", alhpa=0.5)  # type: ignore[call-arg]


def llama_index() -> None:
    llm = LlamaIndexLLM(
        draft_model="a", assistant_model="b", max_tokens=5, stop=["\n"], is_function_calling_model=True
    )
    assert_type(llm.model_name, str)

    LlamaIndexLLM(draft_model="a", assistant_model="b", api_key=SecretStr("x"))

    LlamaIndexLLM(draft_model="a", assistant_model="b", is_chat=True)  # type: ignore[call-arg]
    LlamaIndexLLM(draft_model="a", assistent_model="b")  # type: ignore[call-arg]
    LlamaIndexLLM(draft_model="a", assistant_model="b", beta="0.5")  # type: ignore[arg-type]

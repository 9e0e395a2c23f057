"""An OpenAI-compatible endpoint of one checkpoint on this machine's processor, in place of the
server that one has (vLLM's, or somebody's on the web), for as long as a command runs:

    python demo/serve.py demo/models/llava-v1.6-mistral -- snakemake --configfile demo/other.yaml

It knows what a run asks for: one message with at most one picture, a temperature, a seed, a length,
and the likeliest tokens with their log-probabilities. One request is computed at a time.
"""

import argparse
import base64
import io
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel


class Picture(BaseModel):
    """Where a picture is: `data:image/png;base64,...`."""

    url: str


class Part(BaseModel):
    """A part of a message."""

    type: Literal["text", "image_url"]
    text: str = ""
    image_url: Picture | None = None


class Message(BaseModel):
    """What was said by one side."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates of transformers read it."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": [{"type": "text", "text": self.content}]}
        parts = [
            {"type": "image"} if part.image_url else {"type": "text", "text": part.text}
            for part in self.content
        ]
        return {"role": self.role, "content": parts}

    def pictures(self) -> list[Image.Image]:
        """The pictures in it, in order."""
        parts = [] if isinstance(self.content, str) else self.content
        return [_decoded(part.image_url.url) for part in parts if part.image_url]


def _decoded(url: str) -> Image.Image:
    data = base64.b64decode(url.partition("base64,")[2])
    return Image.open(io.BytesIO(data)).convert("RGB")


class Chat(BaseModel):
    """A request for a completion."""

    model: str
    messages: list[Message]
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0


class Served:
    """A checkpoint of a vision-language model, answering one request at a time."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.name = folder.name
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.lock = threading.Lock()

    def complete(self, chat: Chat) -> dict[str, Any]:
        """The completion, in OpenAI's form."""
        import torch

        inputs = self._inputs(chat.messages)
        limit = chat.max_completion_tokens or chat.max_tokens or 64
        drawn: dict[str, Any] = (
            {"do_sample": True, "temperature": chat.temperature, "top_k": 0}
            if chat.temperature
            else {"do_sample": False}
        )
        with self.lock, torch.inference_mode():
            torch.manual_seed(chat.seed)
            output = self.model.generate(
                **inputs,
                **drawn,
                max_new_tokens=limit,
                output_logits=True,
                return_dict_in_generate=True,
            )
        asked = inputs["input_ids"].shape[1]
        return self._completion(chat, asked, output.sequences[0, asked:].tolist(), output.logits)

    def _inputs(self, messages: list[Message]) -> Any:
        prompt = self.processor.apply_chat_template(
            [message.for_template() for message in messages], add_generation_prompt=True
        )
        pictures = [picture for message in messages for picture in message.pictures()]
        return self.processor(text=[prompt], images=pictures or None, return_tensors="pt")

    def _completion(
        self, chat: Chat, asked: int, tokens: list[int], logits: tuple[Any, ...]
    ) -> dict[str, Any]:
        ends = self.model.generation_config.eos_token_id
        ended = tokens[-1] in (ends if isinstance(ends, list) else [ends])
        text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop" if ended else "length",
        }
        if chat.logprobs:
            steps = zip(tokens, logits, strict=True)
            choice["logprobs"] = {
                "content": [self._likeliest(*step, chat.top_logprobs) for step in steps]
            }
        return {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.name,
            "choices": [choice],
            "usage": {
                "prompt_tokens": asked,
                "completion_tokens": len(tokens),
                "total_tokens": asked + len(tokens),
            },
        }

    def _likeliest(self, token: int, logits: Any, count: int) -> dict[str, Any]:
        """A written token and the likeliest ones at its place, with their log-probabilities."""
        found = logits[0].float().log_softmax(dim=-1)
        top = found.topk(count).indices.tolist() if count else []
        return {
            **self._token(token, found),
            "top_logprobs": [self._token(each, found) for each in top],
        }

    def _token(self, token: int, found: Any) -> dict[str, Any]:
        text = self.processor.tokenizer.decode([token])
        return {"token": text, "logprob": found[token].item(), "bytes": list(text.encode())}


def application(served: Served) -> FastAPI:
    """The server's two addresses."""
    app = FastAPI()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        entry = {"id": served.name, "object": "model", "created": 0, "owned_by": "demo"}
        return {"object": "list", "data": [entry]}

    @app.post("/v1/chat/completions")
    def complete(chat: Chat) -> dict[str, Any]:
        return served.complete(chat)

    return app


def main(arguments: list[str] | None = None) -> int:
    """Serves a checkpoint while a command runs; the command's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("checkpoint", type=Path, help="a folder, such as demo/models/qwen2.5-vl")
    parser.add_argument("--port", type=int, default=8791)
    parser.add_argument("command", nargs="+", help="what is run meanwhile, after `--`")
    options = parser.parse_args(arguments)
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            application(Served(options.checkpoint)),
            host="127.0.0.1",
            port=options.port,
            log_level="warning",
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.05)
    if not server.started:
        print(f"nothing can be served at port {options.port}", file=sys.stderr)
        return 1
    try:
        return subprocess.run(options.command, check=False).returncode
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    sys.exit(main())

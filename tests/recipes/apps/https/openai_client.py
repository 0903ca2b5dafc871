"""Chat completions by the OpenAI SDK, whole and streamed. Its key is no secret: Envoy puts the token in."""

import json
import os
import sys

import openai

http2 = os.environ["VERSION"] == "2"
client = openai.OpenAI(
    base_url=f"{os.environ['API']}/v1",
    api_key="unused",
    max_retries=0,
    http_client=openai.DefaultHttpxClient(http2=True) if http2 else None,
)
asked = [{"role": "user", "content": "ping"}]
whole = client.chat.completions.create(model="stand-in", messages=asked)
events = []
for chunk in client.chat.completions.create(model="stand-in", messages=asked, stream=True):
    events.append(chunk.choices[0].delta.content)
    client.models.list()
json.dump({"events": events, "whole": whole.choices[0].message.content}, sys.stdout)

"""Calls a model by the OpenAI SDK, and prints what the SDK makes of a refusal."""

import json
import os
import sys

import openai

client = openai.OpenAI(base_url=os.environ["API"], api_key=os.environ["API_KEY"], max_retries=0)
try:
    client.models.list()
except openai.APIStatusError as error:
    shown = {
        "code": error.code,
        "type": error.type,
        "said": error.body["message"],
        "printed": str(error),
    }
    json.dump(shown, sys.stdout)

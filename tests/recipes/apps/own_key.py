"""Calls a model by the OpenAI SDK with the app's own key, and prints how the API answered."""

import json
import os
import sys

import openai

client = openai.OpenAI(base_url=os.environ["API"], api_key=os.environ["API_KEY"], max_retries=0)
try:
    answer = client.models.with_raw_response.list()
    json.dump({"status": answer.status_code, **json.loads(answer.text)}, sys.stdout)
except openai.OpenAIError as error:
    json.dump({"status": getattr(error, "status_code", None), "said": str(error)}, sys.stdout)

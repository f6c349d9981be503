"""The chat template: ChatML turns, with tools in the format of Hermes and Qwen."""

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CALL, END_OF_CALL = "<tool_call>", "</tool_call>"
RESPONSE, END_OF_RESPONSE = "<tool_response>", "</tool_response>"

TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}
{{- content -}}
{%- elif content -%}
{%- for part in content -%}
{{- part if part is string else (part.text if part.text else '') -}}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- if tools -%}
{{- '<|im_start|>system\\n' -}}
{%- if messages and messages[0].role == 'system' -%}
{{- text(messages[0].content) + '\\n\\n' -}}
{%- endif -%}
{{- 'You can call these tools:\\n<tools>\\n' -}}
{%- for tool in tools -%}
{{- tool | tojson -}}{{- '\\n' -}}
{%- endfor -%}
{{- '</tools><|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if tools and loop.first and message.role == 'system' -%}
{%- elif message.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}
{{- '<|im_start|>user' -}}
{%- endif -%}
{{- '\\n<tool_response>\\n' + text(message.content) + '\\n</tool_response>' -}}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- else -%}
{%- set content = text(message.content) -%}
{{- '<|im_start|>' + message.role + '\\n' + content -}}
{%- for call in message.tool_calls or [] -%}
{%- set function = call.function if call.function else call -%}
{{- '\\n' if content or not loop.first else '' -}}
{{- '<tool_call>\\n{"name": ' + function.name | tojson + ', "arguments": ' -}}
{{- function.arguments if function.arguments is string else function.arguments | tojson -}}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

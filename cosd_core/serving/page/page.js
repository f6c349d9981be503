"use strict";

// Texts of models reach the page as text nodes and never as markup.
const at = id => document.getElementById(id);
const GLYPHS = { " ": "␣", "\n": "↵", "\t": "⇥" };
let running = null;

function element(tag, kind, ...children) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}

// Control characters and direction marks as symbols, as in cosd_core/utils/escaping.py.
function harmless(text) {
  return text.replace(/[\x00-\x08\x0b-\x1f]/g, found => String.fromCodePoint(0x2400 + found.charCodeAt(0)))
    .replace(/\x7f/g, "␡")
    .replace(/[\x80-\x9f]/g, "\ufffd")
    .replace(/[\u061c\u202a-\u202e\u2066-\u2069\u2028\u2029]/g, found =>
      `<U+${found.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}>`);
}

function quote(text, id) {
  if (!text) return `token ${id}`;
  const shown = harmless(text).replace(/^ +| +$|[\n\t]/g, found => [...found].map(each => GLYPHS[each]).join(""));
  return shown.length > 40 ? `${shown.slice(0, 40)}…` : shown;
}

// The text of a replaced token, with a sign before white space that could not be seen.
function marked(text) {
  const spaces = text.trim() ? /([\n\t])/ : /([ \n\t])/;
  return text.split(spaces).filter(Boolean).flatMap(part => {
    if (!GLYPHS[part]) return [part];
    const sign = element("i", "sign");
    sign.dataset.sign = GLYPHS[part];
    return [sign, part];
  });
}

// Adds a token to others. The tokens that together are one replacement are one; says whether this one was added so.
function merge(tokens, token) {
  const continues = token.source === "assistant" && token.other_text === "" && tokens.length > 0;
  if (continues) tokens.at(-1).text += token.text;
  else tokens.push({ ...token });
  return continues;
}

function outcomeOf(token) {
  if (token.source === "assistant") return "replaced";
  if (token.q === null) return "unchecked";
  return token.other_text === null ? "agreed" : "disputed";
}

function assistantOf(token, models) {
  if (models.length < 3 || token.assistant_index === null) return "assistant";
  return `assistant ${token.assistant_index + 1} (${models[token.assistant_index + 1]})`;
}

function row(name, text, symbol, confidence, isRejected) {
  const bar = element("i");
  bar.style.setProperty("--share", `${Math.round(confidence * 100)}%`);
  const word = element(isRejected ? "del" : "kbd", "", text);
  return element("span", "row", `${name} `, word, " ", bar, element("var", "", `${symbol} = ${confidence.toFixed(2)}`));
}

function card(token, models) {
  const outcome = outcomeOf(token), name = assistantOf(token, models), replaced = outcome === "replaced";
  const heads = {
    replaced: `${name} in place of the draft`,
    disputed: `draft kept, ${name} disagreed`,
    agreed: `draft, and ${name} agrees`,
    unchecked: "draft, assistant not asked",
  };
  const made = element("span", "card", element("b", "", heads[outcome]));
  made.append(row("draft", quote(replaced ? token.other_text : token.text, token.draft_id), "p", token.p, replaced));
  if (token.q !== null) {
    const text = outcome === "disputed" ? token.other_text : token.text;
    made.append(row("assistant", quote(text, token.assistant_id), "q", token.q, outcome === "disputed"));
  }
  made.hidden = true;
  made.setAttribute("role", "tooltip");
  return made;
}

function shownToken(token, models, { cut = "", isEnd = false } = {}) {
  const outcome = outcomeOf(token);
  const color = outcome === "unchecked" ? "" : ` a${((token.assistant_index ?? 0) % 3) + 1}`;
  const made = element(outcome === "replaced" ? "mark" : "span", `t${color}${outcome === "disputed" ? " disputed" : ""}`);
  const text = harmless(token.text);
  made.append(...(outcome === "replaced" ? marked(text) : [text]));
  if (cut) made.append(element("s", "", quote(cut)));
  if (!token.text && !cut) made.append(element("i", isEnd ? "end" : "empty"));
  made.tabIndex = ["agreed", "unchecked"].includes(outcome) && !cut && !isEnd ? -1 : 0;
  made.append(card(token, models));
  return made;
}

// The finished answer: its tokens are cut where its text ends.
function showWhole(trace) {
  const tokens = [], endsByToken = trace.finish_reason === "stop" && trace.stop_sequence === null;
  for (const token of trace.tokens) merge(tokens, token);
  let left = trace.text.length;
  at("answer").replaceChildren(...tokens.map((token, index) => {
    const text = token.text.slice(0, left), cut = token.text.slice(left);
    left -= text.length;
    return shownToken({ ...token, text }, trace.models, { cut, isEnd: endsByToken && index === tokens.length - 1 });
  }));
  const has = selector => at("answer").querySelector(selector) !== null;
  const entries = [element("span", "t", "draft")];
  for (const color of [1, 2, 3]) {
    if (has(`mark.a${color}`)) entries.push(element("mark", `t a${color}`, trace.models.length > 2 ? `assistant ${color}` : "assistant"));
  }
  if (has(".disputed")) entries.push(element("span", "t disputed", "draft, assistant disagreed"));
  if (has(".end")) entries.push(element("span", "", element("i", "end"), " end of text"));
  at("legend").replaceChildren(...entries.map(each => element("li", "", each)));
  const { stats } = trace;
  const figures = {
    Tokens: `${stats.tokens} (${stats.tokens_per_second.toFixed(1)} per second)`,
    Kept: `${stats.kept} (${Math.round(stats.acceptance_rate * 100)}%)`,
    Replaced: `${stats.replaced}`,
    Passes: `${stats.draft_passes} draft, ${stats.assistant_passes} assistant`,
    Verifier: trace.verifier.name ?? "",
    "Ended by": trace.finish_reason === "length" ? "length limit" : endsByToken ? "end token" : "stop sequence",
  };
  at("figures").replaceChildren(...Object.entries(figures).map(([name, value]) =>
    element("div", "", element("dt", "", name), element("dd", "", value))));
}

function show(message, isError = false) {
  at("status").textContent = message;
  at("status").className = isError ? "error" : "";
}

function request() {
  const messages = [{ role: "user", content: at("question").value }];
  if (at("system").value) messages.unshift({ role: "system", content: at("system").value });
  const body = { model: document.body.dataset.model, messages, stream: true, provenance: true };
  for (const name of ["max_tokens", "temperature", "seed"]) {
    if (at(name).value) body[name] = Number(at(name).value);
  }
  if (at("verifier").value) body.verifier = at("verifier").value;
  return body;
}

async function* events(response) {
  let text = "";
  for await (const part of parts(response.body.pipeThrough(new TextDecoderStream()))) {
    text += part;
    const whole = text.split("\n\n");
    text = whole.pop();
    for (const event of whole) {
      const data = event.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

// Not every browser can iterate over a stream.
async function* parts(stream) {
  const reader = stream.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
}

async function ask() {
  running = new AbortController();
  const headers = { "Content-Type": "application/json" };
  if (at("key").value) headers.Authorization = `Bearer ${at("key").value}`;
  const tokens = [];
  for (const id of ["answer", "legend", "figures"]) at(id).replaceChildren();
  at("shown").hidden = true;
  show("The models are asked …");
  try {
    const options = { method: "POST", headers, body: JSON.stringify(request()), signal: running.signal };
    const response = await fetch("v1/chat/completions", options);
    if (!response.ok) {
      const { error } = await response.json();
      if (response.status === 401) {
        at("settings").open = true;
        at("key").focus();
      }
      throw new Error(error.message);
    }
    at("shown").hidden = false;
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      const [{ provenance, finish_reason: reason }] = event.choices;
      if (reason) {
        showWhole(provenance);
        show(reason === "length" ? "Cut at the limit of tokens." : "Done.");
      } else if (provenance) {
        for (const token of provenance.tokens) {
          if (merge(tokens, token)) at("answer").lastChild.remove();
          at("answer").append(shownToken(tokens.at(-1), []));
        }
      }
    }
  } catch (error) {
    show(error.name === "AbortError" ? "Stopped." : error.message, error.name !== "AbortError");
  } finally {
    running = null;
    busy(false);
  }
}

function busy(isBusy) {
  at("send").disabled = isBusy;
  at("stop").hidden = !isBusy;
}

at("ask").addEventListener("submit", event => {
  event.preventDefault();
  if (running) return;
  busy(true);
  ask();
});
at("stop").addEventListener("click", () => {
  running?.abort();
  at("question").focus();
});
at("question").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at("ask").requestSubmit();
});
addEventListener("keydown", event => {
  const here = document.activeElement.closest(".cosd .text .t");
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (here && event.key === "Escape") here.blur();
  if (!here || !step) return;
  const all = [...document.querySelectorAll(".cosd .text .t")];
  (all[all.indexOf(here) + step] ?? here).focus();
  event.preventDefault();
});

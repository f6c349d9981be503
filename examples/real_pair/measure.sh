#!/usr/bin/env bash
# The figures of the real pair: measure.sh FOLDER [ADAPTER], from the root of the repository, in its environment.
# Questions, trees, settings and reports go to FOLDER; an interrupted run continues there.
set -euo pipefail
out=$1
adapter=${2:-examples/real_pair/adapter}
base=$(python -m examples.real_pair.smollm2)
python -m examples.real_pair.questions "$out"

adapter_drafts=(--draft "$base" --draft-adapter "$adapter" --assistant "$base" --dtype bfloat16)
base_drafts=(--draft "$base" --assistant "$base" --assistant-adapter "$adapter" --dtype bfloat16)
answers=(--max-new-tokens 32 --batch-size 16)

cosd tune "${adapter_drafts[@]}" "${answers[@]}" --weight 0.5 --task "$out/practice.jsonl" --out "$out/tuned"

# A tree holds for the roles in which it was learned, so --both-roles does not fit it.
cosd train-tree "${adapter_drafts[@]}" --data "$out/practice.jsonl" --out "$out/adapter_drafts.json"
cosd train-tree "${base_drafts[@]}" --data "$out/practice.jsonl" --out "$out/base_drafts.json"
models='"draft_model": "%s", "assistant_model": "%s", "%s_adapter": "%s"'
for roles in "adapter draft" "base assistant"; do
  read -r drafting role <<< "$roles"
  printf "{$models, \"verifier\": \"tree\", \"tree_path\": \"%s\"}" \
    "$base" "$base" "$role" "$adapter" "$out/${drafting}_drafts.json" > "$out/tree, $drafting drafts.json"
done

cosd evaluate "${adapter_drafts[@]}" "${answers[@]}" --task "$out/held_out.jsonl" --out "$out/evaluation" \
  --method draft --method assistant --method average --method rule --both-roles --settings-file "$out/tuned/tuned.json" \
  --settings-file "$out/tree, adapter drafts.json" --settings-file "$out/tree, base drafts.json"

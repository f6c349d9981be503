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
cosd train-tree "${adapter_drafts[@]}" --data "$out/practice.jsonl" --out "$out/tree.json"
cosd train-tree "${base_drafts[@]}" --data "$out/practice.jsonl" --out "$out/tree_base_drafts.json"
cat > "$out/tree_base_drafts_settings.json" <<END
{"draft_model": "$base", "assistant_model": "$base", "assistant_adapter": "$adapter",
 "verifier": "tree", "tree_path": "$out/tree_base_drafts.json"}
END
cosd evaluate "${adapter_drafts[@]}" "${answers[@]}" --task "$out/held_out.jsonl" --out "$out/evaluation" \
  --method draft --method assistant --method average --method rule --both-roles --settings-file "$out/tuned/tuned.json" \
  --settings-file "$out/tree_base_drafts_settings.json"

"""Constraints on a text: JSON Schemas, regular expressions and Lark grammars, enforced and checked."""

from cosd_core.grammar.grammar import Grammar as Grammar

"""Servers of other projects that decode with a draft and an assistant of ours."""

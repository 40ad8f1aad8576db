attn.module {
  attn.main {
    %0 = attn.causal
    %1 = attn.local {w = 128 : index}
    %2 = attn.global {tokens = tokens<0>}
    %3 = attn.hierarchical {factor = 4 : index}
    %4 = attn.union %1, %2, %3
    %5 = attn.intersection %0, %4
    attn.return %5
  }
}

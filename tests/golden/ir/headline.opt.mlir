attn.module {
  attn.main {
    %0 = attn.local {left = 127 : index, right = 0 : index}
    %1 = attn.causal
    %2 = attn.global {tokens = tokens<0>}
    %3 = attn.hierarchical {factor = 4 : index}
    %4 = attn.union %2, %3
    %5 = attn.intersection %1, %4
    %6 = attn.union %0, %5
    attn.return %6
  }
}

attn.module {
  attn.main {
    %0 = attn.hierarchical {factor = 2 : index, window = 2 : index, leaf = 4 : index, reduce = "max", weight = "one"}
    %1 = attn.causal
    %2 = attn.columns {tokens = tokens<-1>}
    %3 = attn.complement %2
    %4 = attn.intersection %0, %1, %3
    %5 = attn.hierarchical {factor = 4 : index, window = 0 : index}
    %6 = attn.chunked {size = 16 : index}
    %7 = attn.intersection %5, %6
    %8 = attn.sum %4, %7
    attn.return %8
  }
}

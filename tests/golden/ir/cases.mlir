attn.module {
  attn.main {
    %0 = attn.full
    %1 = attn.local {w = 8 : index}
    %2 = attn.local {w = 4 : index}
    %3 = attn.union %1, %2
    %4 = attn.strided {s = ceil(sqrt(n))}
    %5 = attn.heads %3, %4 {ranges = [0:4:1], otherwise = true}
    %6 = attn.causal
    %7 = attn.chunked {size = 8 : index, back = 1 : index}
    %8 = attn.local {w = 3 : index}
    %9 = attn.sum %7, %8
    %10 = attn.sinks {m = 2 : index}
    %11 = attn.difference %9, %10
    %12 = attn.intersection %6, %11
    %13 = attn.layers %0, %5, %12 {ranges = [5:_:6, 0:2:1], otherwise = true}
    attn.return %13
  }
}

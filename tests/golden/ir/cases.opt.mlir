attn.module {
  attn.main {
    %0 = attn.full
    %1 = attn.local {w = 8 : index}
    %2 = attn.strided {s = ceil(sqrt(n))}
    %3 = attn.heads %1, %2 {ranges = [0:4:1], otherwise = true}
    %4 = attn.causal
    %5 = attn.chunked {size = 8 : index, back = 1 : index}
    %6 = attn.local {w = 3 : index}
    %7 = attn.sum %5, %6
    %8 = attn.sinks {m = 2 : index}
    %9 = attn.difference %7, %8
    %10 = attn.intersection %4, %9
    %11 = attn.layers %0, %3, %10 {ranges = [5:_:6, 0:2:1], otherwise = true}
    attn.return %11
  }
}

attn.module {
  attn.main {
    #0 = abs(sub(q, k))
    %0 = attn.local {w = 128 : index}
    %1 = attn.strided {s = 2 : index}
    %2 = attn.intersection %0, %1
    %3 = attn.rows {tokens = tokens<0>}
    %4 = attn.transpose %3
    %5 = attn.shift %4 {by = 1 : index}
    %6 = attn.logsparse
    %7 = attn.where {keep = lt(add(floordiv(#0, 4), mod(#0, 4)), 5)}
    %8 = attn.intersection %6, %7
    %9 = attn.blocks %8 {size = 2 : index}
    %10 = attn.symmetric_difference %2, %5, %9
    attn.return %10
  }
}

attn.module {
  attn.param @window = 8
  attn.input @doc
  attn.func @near(%m, %step) {
    %0 = attn.local {w = %m}
    %1 = attn.where {keep = and(eq(mod(sub(q, k), %step), 0), lt(k, %m))}
    %2 = attn.union %0, %1
    attn.return %2
  }
  attn.main {
    %0 = attn.same {input = "doc"}
    %1 = attn.causal
    %2 = attn.call @near {arguments = [$window, 2]}
    %3 = attn.call @near {arguments = [3, 3]}
    %4 = attn.none
    %5 = attn.columns {tokens = tokens<0, -1, _:_:5>}
    %6 = attn.complement %5
    %7 = attn.complement %6
    %8 = attn.union %2, %3, %4, %7
    %9 = attn.intersection %0, %1, %8
    attn.return %9
  }
}

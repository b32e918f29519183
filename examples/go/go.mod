module example.org/bpfmap

go 1.19

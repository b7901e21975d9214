module kubeactor.test/lesscaps

go 1.26.0

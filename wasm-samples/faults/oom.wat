;; Grows its memory without end: past the limit it ends with exit code 137, OOMKilled.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $more
      (drop (memory.grow (i32.const 16)))
      (br $more))))

;; Never ends by itself: shows the CPU limit, and that a spinning guest is killed in its grace
;; period.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $forever (br $forever))))

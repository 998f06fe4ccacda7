module session-gateway/examples/shop

go 1.19

require session-gateway/upstream v0.1.0

replace session-gateway/upstream => ../../../clients/go

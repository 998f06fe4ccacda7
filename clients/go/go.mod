module session-gateway/upstream

go 1.19

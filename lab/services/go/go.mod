module clew/lab/vulnerable

go 1.19

/* What an attacker runs: it makes the file that proves it. Also `decoy`, which does nothing. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* `payload --as-pid N MARK`: an innocent program that happens to get the process id N. */
static int as_pid(char **argv) {
    int wanted = atoi(argv[2]);
    for (int attempt = 0; attempt < 200; attempt++) {
        FILE *last = fopen("/proc/sys/kernel/ns_last_pid", "w");
        if (!last) return 3;
        fprintf(last, "%d", wanted - 1);
        fclose(last);
        pid_t child = fork();
        if (child == 0) {
            if (getpid() != wanted) _exit(9);
            execl(argv[0], argv[0], argv[3], (char *)NULL);
            _exit(127);
        }
        int status;
        waitpid(child, &status, 0);
        if (!WIFEXITED(status)) return 4;
        if (WEXITSTATUS(status) != 9) return WEXITSTATUS(status);
    }
    return 5;
}

int main(int argc, char **argv) {
#ifndef DECOY
    if (argc == 4) return as_pid(argv);
    if (argc > 1) close(open(argv[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
#else
    (void)argc, (void)argv, (void)as_pid;
#endif
    return 0;
}

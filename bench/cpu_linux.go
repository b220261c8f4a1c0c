package bench

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// cpuTime is the user and system time that a process has used so far.
func cpuTime(pid int) (time.Duration, error) {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("couldn't read the CPU time of process %d: %w", pid, err)
	}
	return parseStat(string(line))
}

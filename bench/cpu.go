package bench

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of the CPU times in /proc/PID/stat: USER_HZ is 100 on every
// architecture that Go runs on (proc_pid_stat(5)).
const tick = 10 * time.Millisecond

// Fields of /proc/PID/stat after the process's name (proc_pid_stat(5), counted
// there from 1 with pid and comm first).
const (
	statUserTime   = 14 - 3
	statSystemTime = 15 - 3
)

// parseStat gives the user and system time of a process from its line of
// /proc/PID/stat. The name stands in parentheses and may itself hold spaces and
// parentheses; its end is the last one of the line.
func parseStat(line string) (time.Duration, error) {
	end := strings.LastIndexByte(line, ')')
	if end < 0 || !strings.Contains(line[:end], "(") {
		return 0, fmt.Errorf("couldn't read a process's times: no name in parentheses")
	}
	fields := strings.Fields(line[end+1:])
	if len(fields) <= statSystemTime {
		return 0, fmt.Errorf("couldn't read a process's times: %d fields after its name, at least %d are needed", len(fields), statSystemTime+1)
	}
	user, err := parseTicks(fields[statUserTime])
	if err != nil {
		return 0, err
	}
	system, err := parseTicks(fields[statSystemTime])
	if err != nil {
		return 0, err
	}
	return user + system, nil
}

func parseTicks(field string) (time.Duration, error) {
	// 39 bits are 174 years of ticks, which a Duration can hold.
	n, err := strconv.ParseUint(field, 10, 39)
	if err != nil {
		return 0, fmt.Errorf("couldn't read a process's times: %w", err)
	}
	return time.Duration(n) * tick, nil
}

package bench

import (
	"fmt"
	"strconv"
	"strings"
)

// parseRollup gives the resident bytes from the text of /proc/PID/smaps_rollup,
// which counts every page, where statm may be some pages behind for each thread.
func parseRollup(text string) (int64, error) {
	for line := range strings.Lines(text) {
		value, found := strings.CutPrefix(line, "Rss:")
		if !found {
			continue
		}
		number, found := strings.CutSuffix(strings.TrimSpace(value), " kB")
		// 50 bits are what a process can address.
		size, err := strconv.ParseUint(number, 10, 50)
		if err != nil || !found {
			return 0, fmt.Errorf("couldn't read a process's memory: its size is %q", strings.TrimSpace(value))
		}
		return int64(size) << 10, nil
	}
	return 0, fmt.Errorf("couldn't read a process's memory: no line says its resident size")
}

package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// Figure is one measured value. Members that don't apply are nil, and null in
// JSON: Reference and Ratio without a reference, Goal and Met without a goal.
type Figure struct {
	Name      string   `json:"figure"`
	Value     float64  `json:"value"`
	Unit      string   `json:"unit"`
	Reference *float64 `json:"reference"` // in Unit, from the same run
	Ratio     *float64 `json:"ratio"`     // Value by Reference
	Goal      *float64 `json:"goal"`      // the least Ratio that is good enough, or the most; of the Value where there is no Ratio
	Bound     *string  `json:"bound"`     // which of the two: Least or Most
	Met       *bool    `json:"met"`
}

// What a goal is for its ratio.
const (
	Least = "least"
	Most  = "most"
)

// Plain is a figure without a reference.
func Plain(name string, value float64, unit string) Figure {
	return Figure{Name: name, Value: value, Unit: unit}
}

// Beside is a figure whose reference is for comparison only.
func Beside(name string, value float64, unit string, reference float64) Figure {
	f := Plain(name, value, unit)
	f.Reference = &reference
	if reference > 0 {
		ratio := value / reference
		f.Ratio = &ratio
	}
	return f
}

// AtLeast is a figure whose ratio to a reference should reach a goal. Without a
// positive reference there is no ratio, and the goal isn't met.
func AtLeast(name string, value float64, unit string, reference, goal float64) Figure {
	f := Beside(name, value, unit, reference)
	return f.judged(goal, Least, f.Ratio != nil && *f.Ratio >= goal)
}

// AtMost is a figure whose ratio to a reference shouldn't exceed a goal.
// Without a positive reference there is no ratio, and the goal isn't met.
func AtMost(name string, value float64, unit string, reference, goal float64) Figure {
	f := Beside(name, value, unit, reference)
	return f.judged(goal, Most, f.Ratio != nil && *f.Ratio <= goal)
}

// Within is a figure that itself shouldn't exceed a goal.
func Within(name string, value float64, unit string, goal float64) Figure {
	f := Plain(name, value, unit)
	return f.judged(goal, Most, value <= goal)
}

func (f Figure) judged(goal float64, bound string, met bool) Figure {
	f.Goal, f.Bound, f.Met = &goal, &bound, &met
	return f
}

// PrintJSON writes the figures as one JSON array.
func PrintJSON(w io.Writer, figures []Figure) error {
	if figures == nil {
		figures = []Figure{}
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(figures)
	if err != nil {
		return fmt.Errorf("couldn't write the figures: %w", err)
	}
	return nil
}

// PrintTable writes the figures as a table for people, one a line under a line
// of headings.
func PrintTable(w io.Writer, figures []Figure) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "FIGURE\tVALUE\tUNIT\tREFERENCE\tRATIO\tGOAL\tMET")
	for _, f := range figures {
		met := "-"
		if f.Met != nil {
			met = map[bool]string{true: "yes", false: "no"}[*f.Met]
		}
		bound := ""
		if f.Bound != nil && *f.Bound == Most {
			bound = "<= "
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s%s\t%s\n", f.Name, show(&f.Value), f.Unit,
			show(f.Reference), show(f.Ratio), bound, show(f.Goal), met)
	}
	err := table.Flush()
	if err != nil {
		return fmt.Errorf("couldn't write the figures: %w", err)
	}
	return nil
}

// show gives a value about three digits.
func show(value *float64) string {
	if value == nil {
		return "-"
	}
	decimals := 2
	switch size := math.Abs(*value); {
	case size >= 100:
		decimals = 0
	case size >= 10:
		decimals = 1
	}
	return strconv.FormatFloat(*value, 'f', decimals, 64)
}

// perSecond is n by a time of at least one clock tick, the finest that can be
// told apart.
func perSecond(n int, spent time.Duration) float64 {
	return float64(n) / max(spent, tick).Seconds()
}

// percentile is the smallest duration that p per cent of all don't exceed
// (nearest rank); 0 without any.
func percentile(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

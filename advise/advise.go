package advise

// Advice is what answers lead to.
type Advice struct {
	Answers  Answers    `json:"answers"`
	Flows    []Flow     `json:"flows"` // the first one is to be taken; at least one
	RuledOut []RuledOut `json:"ruledOut"`
}

// Flow is a flow that is possible.
type Flow struct {
	Name     string    `json:"flow"`
	Title    string    `json:"title"`
	Take     string    `json:"take"` // when to choose it
	Page     string    `json:"page"` // of the documentation
	Reasons  []string  `json:"reasons"`
	Files    []File    `json:"files"` // that the commands read
	Commands []Command `json:"commands"`
}

// RuledOut is a flow that isn't possible.
type RuledOut struct {
	Name  string   `json:"flow"`
	Title string   `json:"title"`
	Why   []string `json:"why"`
}

// For gives the advice for answers, all of which must be there.
func For(a Answers) (Advice, error) {
	err := a.check()
	if err != nil {
		return Advice{}, err
	}
	advice := Advice{Answers: a, RuledOut: []RuledOut{}}
	for _, f := range flows() {
		why := f.against(a)
		if len(why) > 0 {
			advice.RuledOut = append(advice.RuledOut, RuledOut{Name: f.name, Title: f.title, Why: why})
			continue
		}
		p := f.plan(a)
		advice.Flows = append(advice.Flows, Flow{
			Name: f.name, Title: f.title, Take: f.take, Page: f.page, Reasons: f.reasonsFor(a), Files: p.files, Commands: p.commands,
		})
	}
	return advice, nil
}

// against says what rules a flow out.
func (f flow) against(a Answers) []string {
	var why []string
	for _, n := range f.needs {
		if !n.holds(a) {
			why = append(why, n.otherwise(a))
		}
	}
	return why
}

func (f flow) reasonsFor(a Answers) []string {
	var found []string
	for _, r := range f.reasons {
		if r.applies(a) {
			found = append(found, r.text)
		}
	}
	return found
}

// All gives every combination of answers, the first question's answer changing
// slowest.
func All() []Answers {
	all := []Answers{{}}
	for _, q := range Questions() {
		var longer []Answers
		for _, a := range all {
			for _, option := range q.Options {
				*q.field(&a) = option.Answer
				longer = append(longer, a)
			}
		}
		all = longer
	}
	return all
}

// Row is a flow of the table, whatever the answers.
type Row struct {
	Name, Title, Take, Page string
	Needs                   []string // all of which must hold
}

// Table gives all flows, the preferred ones first.
func Table() []Row {
	var rows []Row
	for _, f := range flows() {
		row := Row{Name: f.name, Title: f.title, Take: f.take, Page: f.page}
		for _, n := range f.needs {
			row.Needs = append(row.Needs, n.what)
		}
		rows = append(rows, row)
	}
	return rows
}

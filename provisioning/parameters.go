package provisioning

import (
	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/template"
	"github.com/imprint-iot/imprint/trace"
)

// origin says where the value of a parameter came from, or would come from, in the words
// of the trace.
type origin func(name string) string

// recordParameters tells the trace what a template was given for a device.
func recordParameters(rec *trace.Recorder, uses []template.ParameterUse, from origin) {
	for i := range uses {
		use := &uses[i]
		switch use.Source {
		case template.FromDefault:
			rec.Info("template.parameter", "%s = %q (the template's Default)", use.Name, imprint.Excerpt(use.Value))
		case template.FromNowhere:
			rec.Info("template.parameter", "%s has no value: it isn't in %s, and the template has no Default", use.Name, from(use.Name))
		default:
			rec.Info("template.parameter", "%s = %q (%s)", use.Name, imprint.Excerpt(use.Value), from(use.Name))
		}
	}
}

const theService = "the service"

// subjectOrigin is that of just-in-time provisioning.
func subjectOrigin(name string) string {
	if field := template.SubjectField(name); field != "" {
		return "the certificate's subject, " + field
	}
	return theService
}

// requestOrigin is that of fleet provisioning: what the device asked with, and what the
// hook made of it.
func requestOrigin(asked, given map[string]string) origin {
	return func(name string) string {
		if name == template.CertificateIDParameter {
			return theService
		}
		before, sent := asked[name]
		after, known := given[name]
		if known && (!sent || before != after) {
			return "the hook's parameterOverrides"
		}
		return "the device's request"
	}
}

package pki

// lintNeeds are the lints that begin with the question whether a certificate has an
// extension, by that extension: half of all, nearly all of them about extensions that a
// device certificate of AWS IoT Core's kind doesn't have. Each would spell the identifier,
// number by number, to look it up.
var lintNeeds = map[string][]string{
	"1.3.6.1.5.5.7.1.1": { // authorityInfoAccess
		"e_ext_aia_marked_critical",
		"w_ext_aia_access_location_missing",
	},
	"2.5.29.35": { // authorityKeyIdentifier
		"e_ext_authority_key_identifier_critical",
	},
	"2.5.29.19": { // basicConstraints
		"e_path_len_constraint_improperly_included",
	},
	"2.5.29.31": { // cRLDistributionPoints
		"e_distribution_point_incomplete",
		"w_distribution_point_missing_ldap_or_uri",
		"w_ext_crl_distribution_marked_critical",
	},
	"2.5.29.32": { // certificatePolicies
		"e_ext_cert_policy_duplicate",
		"w_ext_cert_policy_contains_noticeref",
	},
	"2.5.29.37": { // extKeyUsage
		"w_eku_critical_improperly",
	},
	"2.5.29.46": { // freshestCRL
		"e_ext_freshest_crl_marked_critical",
	},
	"2.5.29.54": { // inhibitAnyPolicy
		"e_inhibit_any_policy_not_critical",
	},
	"2.5.29.18": { // issuerAltName
		"e_ext_ian_dns_not_ia5_string",
		"e_ext_ian_empty_name",
		"e_ext_ian_no_entries",
		"e_ext_ian_rfc822_format_invalid",
		"e_ext_ian_space_dns_name",
		"e_ext_ian_uri_format_invalid",
		"e_ext_ian_uri_host_not_fqdn_or_ip",
		"e_ext_ian_uri_not_ia5",
		"e_ext_ian_uri_relative",
		"e_ian_bare_wildcard",
		"e_ian_dns_name_includes_null_char",
		"e_ian_dns_name_starts_with_period",
		"e_ian_wildcard_not_first",
		"w_ext_ian_critical",
		"w_ian_iana_pub_suffix_empty",
	},
	"2.5.29.15": { // keyUsage
		"e_ext_key_usage_cert_sign_without_ca",
		"e_ext_key_usage_without_bits",
		"e_key_usage_incorrect_length",
		"w_ext_key_usage_not_critical",
	},
	"2.5.29.30": { // nameConstraints
		"e_ext_name_constraints_not_critical",
		"e_ext_name_constraints_not_in_ca",
		"e_name_constraint_maximum_not_absent",
		"e_name_constraint_minimum_non_zero",
		"e_name_constraint_not_fqdn",
		"w_name_constraint_on_edi_party_name",
		"w_name_constraint_on_registered_id",
		"w_name_constraint_on_x400",
	},
	"2.5.29.36": { // policyConstraints
		"e_ext_policy_constraints_not_critical",
	},
	"2.5.29.33": { // policyMappings
		"e_ext_policy_map_any_policy",
		"w_ext_policy_map_not_critical",
		"w_ext_policy_map_not_in_cert_policy",
	},
	"2.5.29.17": { // subjectAltName
		"e_ext_san_dns_name_too_long",
		"e_ext_san_dns_not_ia5_string",
		"e_ext_san_empty_name",
		"e_ext_san_no_entries",
		"e_ext_san_not_critical_without_subject",
		"e_ext_san_rfc822_format_invalid",
		"e_ext_san_space_dns_name",
		"e_ext_san_uri_format_invalid",
		"e_ext_san_uri_host_not_fqdn_or_ip",
		"e_ext_san_uri_not_ia5",
		"e_ext_san_uri_relative",
		"e_international_dns_name_not_unicode",
		"e_san_bare_wildcard",
		"e_san_dns_name_includes_null_char",
		"e_san_dns_name_starts_with_period",
		"e_san_wildcard_not_first",
		"n_san_dns_name_duplicate",
		"n_san_iana_pub_suffix_empty",
	},
	"2.5.29.9": { // subjectDirectoryAttributes
		"e_ext_subject_directory_attr_critical",
	},
	"1.3.6.1.5.5.7.1.11": { // subjectInfoAccess
		"e_subject_info_access_marked_critical",
	},
	"2.5.29.14": { // subjectKeyIdentifier
		"e_ext_subject_key_identifier_critical",
	},
}

//! Where the services are: their public addresses, or what the environment or `--cloud-config` says instead.

use std::collections::{BTreeMap, HashMap};

use super::{SetupError, action::Service};

/// Ends of host names by the beginning of the region's name, most specific first; every other region has the last.
const DOMAINS: [(&str, &str); 7] = [
    ("cn-", "amazonaws.com.cn"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("us-iso-", "c2s.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
    ("", "amazonaws.com"),
];

/// Where prices are asked for: the Pricing API is in few regions, and any answers for all.
const PRICING_REGIONS: [&str; 2] = ["eu-central-1", "ap-south-1"];

/// The region of prices for the others.
const PRICING_DEFAULT: &str = "us-east-1";

/// Where IAM is, and the region that signatures name, by the beginning of the region's name (AWS General Reference, IAM).
const IAM: [(&str, &str, &str); 3] = [
    ("cn-", "https://iam.cn-north-1.amazonaws.com.cn", "cn-north-1"),
    ("us-gov-", "https://iam.us-gov.amazonaws.com", "us-gov-west-1"),
    ("", "https://iam.amazonaws.com", "us-east-1"),
];

/// Where one service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Scheme and host, without a slash at the end.
    pub url: String,
    /// The region that signatures name.
    pub region: String,
}

/// Where the services are.
#[derive(Debug, Clone)]
pub struct Endpoints {
    region: String,
    overrides: BTreeMap<&'static str, Endpoint>,
}

impl Endpoints {
    /// Reads the addresses of `region` from the environment (`AWS_ENDPOINT_URL_<SERVICE>`, `AWS_ENDPOINT_URL`) and,
    /// which wins, from the text of a `--cloud-config` file.
    pub fn new(
        region: &str,
        environment: &HashMap<String, String>,
        cloud_config: Option<&str>,
    ) -> Result<Self, SetupError> {
        let mut overrides = BTreeMap::new();
        for service in Service::ALL {
            let variable = format!("AWS_ENDPOINT_URL_{}", service.variable());
            let found = [variable.as_str(), "AWS_ENDPOINT_URL"]
                .into_iter()
                .find_map(|name| environment.get(name).filter(|url| !url.is_empty()));
            if let Some(url) = found {
                overrides.insert(service.name(), endpoint(url, region));
            }
        }
        for service_override in cloud_config.map(read).transpose()?.into_iter().flatten() {
            let known = Service::ALL.into_iter().find(|service| service.name() == service_override.service);
            if let Some(service) = known.filter(|_| service_override.region == region) {
                let signed = endpoint(&service_override.url, &service_override.signing_region);
                overrides.insert(service.name(), signed);
            }
        }
        Ok(Self { region: region.to_owned(), overrides })
    }

    /// The region that groups and machines are in.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Where a service is.
    pub fn of(&self, service: Service) -> Endpoint {
        self.overridden(service).cloned().unwrap_or_else(|| self.public(service))
    }

    /// Where a service is, if that was said.
    pub fn overridden(&self, service: Service) -> Option<&Endpoint> {
        self.overrides.get(service.name())
    }

    fn public(&self, service: Service) -> Endpoint {
        let domain = DOMAINS.iter().find(|(prefix, _)| self.region.starts_with(prefix));
        let domain = domain.map_or("amazonaws.com", |(_, domain)| domain);
        if service == Service::Pricing {
            let near = PRICING_REGIONS.into_iter().find(|near| *near == self.region);
            let region = near.unwrap_or(PRICING_DEFAULT);
            return endpoint(&format!("https://api.pricing.{region}.amazonaws.com"), region);
        }
        if service == Service::Iam && domain.starts_with("amazonaws.com") {
            // One for each partition; the isolated ones have it in each region.
            let global = IAM.iter().find(|(prefix, ..)| self.region.starts_with(prefix));
            if let Some((_, url, region)) = global {
                return endpoint(url, region);
            }
        }
        endpoint(&format!("https://{}.{}.{domain}", service.name(), self.region), &self.region)
    }
}

fn endpoint(url: &str, region: &str) -> Endpoint {
    Endpoint { url: url.trim_end_matches('/').to_owned(), region: region.to_owned() }
}

/// A section `[ServiceOverride "N"]`.
#[derive(Debug, Default, PartialEq, Eq)]
struct ServiceOverride {
    service: String,
    region: String,
    url: String,
    signing_region: String,
}

impl ServiceOverride {
    fn set(&mut self, key: &str, value: &str) -> bool {
        let field = match key.to_ascii_lowercase().as_str() {
            "service" => &mut self.service,
            "region" => &mut self.region,
            "url" => &mut self.url,
            "signingregion" => &mut self.signing_region,
            // Known to Cluster Autoscaler and without effect on what it signs with.
            "signingmethod" | "signingname" => return true,
            _ => return false,
        };
        value.clone_into(field);
        true
    }

    fn check(&self, section: &str) -> Result<(), SetupError> {
        let fields = [
            ("Service", &self.service),
            ("Region", &self.region),
            ("URL", &self.url),
            ("SigningRegion", &self.signing_region),
        ];
        match fields.iter().find(|(_, value)| value.is_empty()) {
            Some((missing, _)) => Err(SetupError::CloudConfig(format!(
                "section [{section}] has no {missing}; it needs Service, Region, URL and SigningRegion"
            ))),
            None => Ok(()),
        }
    }
}

/// Reads the overrides of a file in the form of git's configuration (gopkg.in/gcfg.v1, which Cluster Autoscaler reads
/// it with); other sections, `[global]` say, are passed over.
fn read(text: &str) -> Result<Vec<ServiceOverride>, SetupError> {
    let mut found: Vec<(String, ServiceOverride)> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let name = section.split_whitespace().next().unwrap_or_default();
            inside = name.eq_ignore_ascii_case("ServiceOverride");
            if inside {
                found.push((section.to_owned(), ServiceOverride::default()));
            }
            continue;
        }
        let place = || format!("line {}: {line:?}", number + 1);
        let (key, value) = line.split_once('=').ok_or_else(|| {
            SetupError::CloudConfig(format!("{} is neither a [section] nor KEY = VALUE", place()))
        })?;
        if let Some((_, current)) = found.last_mut().filter(|_| inside)
            && !current.set(key.trim(), value.trim().trim_matches('"'))
        {
            return Err(SetupError::CloudConfig(format!(
                "{} is not known in a [ServiceOverride]; it takes Service, Region, URL and SigningRegion",
                place()
            )));
        }
    }
    for (index, (section, current)) in found.iter().enumerate() {
        current.check(section)?;
        let twin = found[..index]
            .iter()
            .find(|(_, other)| other.service == current.service && other.region == current.region);
        if let Some((other, _)) = twin {
            return Err(SetupError::CloudConfig(format!(
                "sections [{other}] and [{section}] both override {} in {}",
                current.service, current.region
            )));
        }
    }
    Ok(found.into_iter().map(|(_, current)| current).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_partition_has_its_domain() {
        for (region, service, url) in [
            ("eu-central-1", Service::Ec2, "https://ec2.eu-central-1.amazonaws.com"),
            ("us-gov-west-1", Service::AutoScaling, "https://autoscaling.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", Service::Sts, "https://sts.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", Service::Sqs, "https://sqs.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", Service::Eks, "https://eks.us-isob-east-1.sc2s.sgov.gov"),
            ("eu-west-1", Service::Pricing, "https://api.pricing.us-east-1.amazonaws.com"),
            ("eu-central-1", Service::Pricing, "https://api.pricing.eu-central-1.amazonaws.com"),
        ] {
            let endpoints = Endpoints::new(region, &HashMap::new(), None).unwrap();
            assert_eq!(endpoints.of(service).url, url);
        }
    }

    #[test]
    fn the_file_wins_over_the_service_which_wins_over_the_common_variable() {
        let environment = environment(&[
            ("AWS_ENDPOINT_URL", "http://all/"),
            ("AWS_ENDPOINT_URL_EC2", "http://ec2"),
            ("AWS_ENDPOINT_URL_AUTO_SCALING", "http://groups"),
        ]);
        let file = "; ours\n[global]\nzone = a\n[ServiceOverride \"1\"]\nService = autoscaling\nRegion=r-1\n\
                    URL = \"https://a.test\"\nSigningRegion = r-2\n[ServiceOverride \"2\"]\nservice=ec2\n\
                    region=other\nurl=https://b.test\nsigningregion=other\n";
        let endpoints = Endpoints::new("r-1", &environment, Some(file)).unwrap();
        assert_eq!(endpoints.of(Service::AutoScaling), endpoint("https://a.test", "r-2"));
        assert_eq!(endpoints.of(Service::Ec2), endpoint("http://ec2", "r-1"), "override of another region");
        assert_eq!(endpoints.of(Service::Sts), endpoint("http://all", "r-1"));
    }

    #[test]
    fn a_fault_of_the_file_says_where_and_what_instead() {
        for (text, message) in [
            (
                "[ServiceOverride \"1\"]\nService=ec2\nRegion=r\nURL=u",
                "--cloud-config: section [ServiceOverride \"1\"] has no SigningRegion; it needs Service, Region, URL and \
                 SigningRegion",
            ),
            ("[global]\nzone", "--cloud-config: line 2: \"zone\" is neither a [section] nor KEY = VALUE"),
            (
                "[ServiceOverride \"1\"]\nHost=u",
                "--cloud-config: line 2: \"Host=u\" is not known in a [ServiceOverride]; it takes Service, Region, URL \
                 and SigningRegion",
            ),
            (
                "[ServiceOverride \"1\"]\nService=ec2\nRegion=r\nURL=u\nSigningRegion=r\n\
                 [ServiceOverride \"2\"]\nService=ec2\nRegion=r\nURL=u\nSigningRegion=r",
                "--cloud-config: sections [ServiceOverride \"1\"] and [ServiceOverride \"2\"] both override ec2 in r",
            ),
        ] {
            let error = Endpoints::new("r", &HashMap::new(), Some(text)).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
